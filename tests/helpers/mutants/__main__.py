"""Mutation testing of the numbers: ``make mutants``, or ``make mutants MODULES=core/scores`` for some modules.

Every mutant of a module (``operators.py``) has to make one of the module's tests fail. Those that can't change a number
are in ``equivalent.toml``, each with its reason. mutmut leaves out decorated functions, and so all scores; cosmic-ray
takes out no calls (such as ``clamp``) and starts a process for each mutant, which imports torch first. Here mutants run
in forks of a process that has imported everything (``forks.py``).
"""

import argparse
import random
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
    """Mutants that can't change a number. Nothing holds wildcards: they would hide others.

    Attributes:
        module: below ``statprune/``.
        function: its qualified name; empty outside every function.
        changes: as they are printed of a survivor.
        reason: why no number changes.
        within: what the line holds, where the same change elsewhere in the function does matter.
        times: how many mutants each of the changes is.
    """

    module: str
    function: str
    changes: tuple[str, ...]
    reason: str
    within: str = ""
    times: int = 1

    def has(self, change: str, mutant: Mutant, lines: list[str]) -> bool:
        """Whether the mutant of a module with these lines is one of them, by this change."""
        is_here = mutant.function == self.function and self.within in lines[mutant.line - 1]
        return is_here and mutant.change == change


def known_ones(equivalent: list[Equivalent], made: list[Mutant], lines: list[str]) -> list[Mutant]:
    """The mutants that are equivalent; a SystemExit where the list is not true of the module as it is."""
    known = []
    for item in equivalent:
        for change in item.changes:
            some = [mutant for mutant in made if item.has(change, mutant, lines)]
            if len(some) != item.times:
                raise SystemExit(f"equivalent.toml: {len(some)} mutants of {item.module} {item.function} are {change}")
            known += some
    return known


def read_settings() -> tuple[list[Target], list[Equivalent]]:
    """The modules and the mutants that are equivalent."""
    targets = tomllib.loads((HERE / "targets.toml").read_text(encoding="utf-8"))["target"]
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]
    made = [Target(item["module"], tuple(item["tests"]), tuple(item.get("functions", ()))) for item in targets]
    return made, [Equivalent(**item | {"changes": tuple(item["changes"])}) for item in equivalent]


@dataclass(frozen=True)
class Outcome:
    """What became of the mutants of a module.

    Attributes:
        target: the module.
        tried: how many the tests had to notice.
        left: those that they did not notice.
        known: the equivalent ones, which were not tried.
    """

    target: Target
    tried: int
    left: list[Mutant]
    known: list[Mutant]

    def row(self) -> str:
        """A line of the table."""
        numbers = (self.tried + len(self.known), self.tried - len(self.left), len(self.known), len(self.left))
        return f"{self.target.module:24}" + "".join(f"{number:12}" for number in numbers)


def outcome(target: Target, equivalent: list[Equivalent], given: argparse.Namespace) -> Outcome:
    """Run the module's tests with each of its mutants, or with a random sample of them, and print what is left."""
    start = time.monotonic()
    source = target.path.read_text(encoding="utf-8")
    made = [
        mutant
        for mutant in mutants(source, str(target.path))
        if not target.functions or mutant.function.startswith(target.functions)
    ]
    if not made:
        raise SystemExit(f"targets.toml: {target.module} has nothing to mutate in {' '.join(target.functions)}")
    of_module = [item for item in equivalent if item.module == target.module]
    known = known_ones(of_module, made, source.splitlines())
    if given.sample is not None and given.sample < len(made):
        made = random.Random(given.seed).sample(made, given.sample)
        known = [mutant for mutant in known if mutant in made]
    tried = [mutant for mutant in made if mutant not in known]
    left = unnoticed(target, tried)
    noticed = [mutant for mutant in known if mutant not in unnoticed(target, known)] if given.equivalent else []
    for verdict, some in (("survived", left), ("equivalent", known), ("equivalent, yet killed", noticed)):
        for mutant in some:
            print(f"{verdict}: statprune/{target.module}.py:{mutant.line} {mutant.function}: {mutant.change}")
    print(f"{target.module}: {time.monotonic() - start:.0f} s", flush=True)
    return Outcome(target, len(tried), left, known)


def main() -> int:
    """Mutate the modules; 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="mutants", description="Mutation testing of the numbers.")
    parser.add_argument("modules", nargs="*", help="below statprune/, such as core/scores; none: all of targets.toml")
    parser.add_argument("--sample", type=int, help="only so many random mutants of each module")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the sample")
    parser.add_argument("--equivalent", action="store_true", help="try the equivalent ones, too, and name those killed")
    given = parser.parse_args()
    targets, equivalent = read_settings()
    if unknown := set(given.modules) - {target.module for target in targets}:
        parser.error(f"{', '.join(sorted(unknown))} is not in tests/helpers/mutants/targets.toml")
    if given.sample is not None:
        print(f"random mutants of each module: --sample {given.sample} --seed {given.seed}", flush=True)
    prepare()
    chosen = [target for target in targets if not given.modules or target.module in given.modules]
    outcomes = [outcome(target, equivalent, given) for target in chosen]
    print(f"\n{'module':24}" + "".join(f"{name:>12}" for name in ("mutants", "killed", "equivalent", "survived")))
    for one in outcomes:
        print(one.row())
    return int(any(one.left for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
