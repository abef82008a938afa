"""Mutation testing of the numbers: ``make mutants``, or ``make mutants MODULES=core/scores`` for some modules.

Every mutant of a module (``operators.py``) has to make one of the module's tests fail. Those that can't change a number
are in ``equivalent.toml``, each with its reason. mutmut leaves out decorated functions, and so all scores; cosmic-ray
takes out no calls (such as ``clamp``) and starts a process for each mutant, which imports torch first. Here mutants run
in forks of a process that has imported everything (``forks.py``).
"""

import argparse
import fnmatch
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.mutants.forks import Target, prepare, unnoticed
from tests.helpers.mutants.operators import Mutant, mutants

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Equivalent:
    """Mutants that can't change a number; all but the reason may hold wildcards."""

    module: str
    function: str
    change: str
    reason: str

    def has(self, target: Target, mutant: Mutant) -> bool:
        """Whether the mutant is one of them."""
        is_here = fnmatch.fnmatchcase(target.module, self.module) and fnmatch.fnmatchcase(
            mutant.function, self.function
        )
        return is_here and (self.change == mutant.change or fnmatch.fnmatchcase(mutant.change, self.change))


def read_settings() -> tuple[list[Target], list[Equivalent]]:
    """The modules and the mutants that are equivalent."""
    targets = tomllib.loads((HERE / "targets.toml").read_text(encoding="utf-8"))["target"]
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]
    made = [Target(item["module"], tuple(item["tests"]), tuple(item.get("functions", ()))) for item in targets]
    return made, [Equivalent(**item) for item in equivalent]


def survivors(target: Target, equivalent: list[Equivalent]) -> list[Mutant]:
    """The module's mutants that its tests don't notice and that are not known to be equivalent."""
    start = time.monotonic()
    source = target.path.read_text(encoding="utf-8")
    all_of_it = [
        mutant
        for mutant in mutants(source, str(target.path))
        if not target.functions or mutant.function.startswith(target.functions)
    ]
    tried = [mutant for mutant in all_of_it if not any(item.has(target, mutant) for item in equivalent)]
    left = unnoticed(target, tried)
    for mutant in left:
        print(f"statprune/{target.module}.py:{mutant.line} {mutant.function}: {mutant.change}")
    known, seconds = len(all_of_it) - len(tried), time.monotonic() - start
    counts = f"{len(tried)} mutants, {len(left)} survived, {known} equivalent"
    print(f"{target.module}: {counts}; {seconds:.0f} s", flush=True)
    return left


def main() -> int:
    """Mutate the modules; 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="mutants", description="Mutation testing of the numbers.")
    parser.add_argument("modules", nargs="*", help="below statprune/, such as core/scores; none: all of targets.toml")
    modules = parser.parse_args().modules
    targets, equivalent = read_settings()
    if unknown := set(modules) - {target.module for target in targets}:
        parser.error(f"{', '.join(sorted(unknown))} is not in tests/helpers/mutants/targets.toml")
    prepare()
    left = [survivors(target, equivalent) for target in targets if not modules or target.module in modules]
    return int(any(left))


if __name__ == "__main__":
    sys.exit(main())
