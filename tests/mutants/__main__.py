"""Mutation testing of the numbers: ``make mutants``, or ``python -m tests.mutants core/scores …`` for some modules.

Every mutant of a module (``operators.py``) has to make one of the module's tests fail. Those that can't change a number
are in ``equivalent.toml``, each with its reason. mutmut leaves out decorated functions, and so all scores; cosmic-ray takes
out no calls (such as ``clamp``) and starts a process for each mutant, which imports torch first. Here each mutant runs in
a fork of a process that has imported the libraries, and none of ours.
"""

import argparse
import contextlib
import fnmatch
import importlib.abc
import importlib.util
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

os.environ["OMP_NUM_THREADS"] = "1"
import hypothesis
import pytest
import torch
import transformers.models.llama.modeling_llama  # noqa: F401  # slow to import, so it is here before the forks

from tests.mutants.operators import Mutant, mutants

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Target:
    """A module to be mutated.

    Attributes:
        module: below ``statprune/``, without ``.py``.
        tests: what has to notice its mutants.
        functions: only of these; empty: of all.
    """

    module: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Equivalent:
    """Mutants that can't change a number; ``function`` and ``change`` may hold wildcards."""

    module: str
    function: str
    change: str
    reason: str

    def has(self, target: Target, mutant: Mutant) -> bool:
        """Whether the mutant is one of them."""
        is_here = self.module == target.module and fnmatch.fnmatchcase(mutant.function, self.function)
        return is_here and (self.change == mutant.change or fnmatch.fnmatchcase(mutant.change, self.change))


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from mutated code."""

    def __init__(self, name: str, path: Path, code: CodeType):
        self._name, self._path, self._code = name, path, code

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def read_settings() -> tuple[list[Target], list[Equivalent]]:
    """The modules and the mutants that are equivalent."""
    targets = tomllib.loads((HERE / "targets.toml").read_text(encoding="utf-8"))["target"]
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))["equivalent"]
    of_files = [Target(t["module"], tuple(t["tests"]), tuple(t.get("functions", ()))) for t in targets]
    return of_files, [Equivalent(**values) for values in equivalent]


def tests_fail(target: Target, code: CodeType | None, limit: float) -> bool:
    """Whether the module's tests fail in a fork, or take longer than ``limit`` seconds."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            status = _tested(target, code)
        finally:
            os._exit(status)
    end = time.monotonic() + limit
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status != 0
        if time.monotonic() > end:
            os.kill(process, 9)
            os.waitpid(process, 0)
            return True
        time.sleep(0.02)


def _tested(target: Target, code: CodeType | None) -> int:
    log = os.open(
        "/tmp/mutants.log" if os.environ.get("MUTANTS_LOG") else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    )
    for stream in (1, 2):
        os.dup2(log, stream)
    if code is not None:
        name = "statprune." + target.module.replace("/", ".")
        sys.meta_path.insert(0, _Mutated(name, ROOT / "statprune" / f"{target.module}.py", code))
    options = ["-x", "-q", "--durations=0", "-p", "no:cacheprovider", "--hypothesis-profile", "mutants"]
    with contextlib.suppress(SystemExit):
        return int(pytest.main([*options, *(str(ROOT / test) for test in target.tests)]))
    return 1


def survivors(target: Target, equivalent: Sequence[Equivalent]) -> list[Mutant]:
    """The module's mutants that its tests don't notice and that are not known to be equivalent."""
    start = time.monotonic()
    if tests_fail(target, None, 600):
        raise SystemExit(f"the tests of {target.module} fail without any mutant: {' '.join(target.tests)}")
    limit = 5 + 5 * (time.monotonic() - start)
    path = ROOT / "statprune" / f"{target.module}.py"
    left, count, known = [], 0, 0
    for mutant in mutants(path.read_text(encoding="utf-8"), str(path)):
        if target.functions and not mutant.function.startswith(target.functions):
            continue
        if any(item.has(target, mutant) for item in equivalent):
            known += 1
            continue
        count += 1
        if not tests_fail(target, mutant.code, limit):
            left.append(mutant)
            print(f"statprune/{target.module}.py:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
    seconds = time.monotonic() - start
    print(f"{target.module}: {count} mutants, {len(left)} survived, {known} equivalent; {seconds:.0f} s", flush=True)
    return left


def main() -> int:
    """Mutate the modules; 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="below statprune/, such as core/scores; none: all of targets.toml")
    modules = parser.parse_args().modules
    targets, equivalent = read_settings()
    if unknown := set(modules) - {target.module for target in targets}:
        parser.error(f"{', '.join(sorted(unknown))} is not in tests/mutants/targets.toml")
    torch.set_num_threads(1)
    hypothesis.settings.register_profile(
        "mutants", database=None, derandomize=True, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    left = [survivors(target, equivalent) for target in targets if not modules or target.module in modules]
    return int(any(left))


if __name__ == "__main__":
    sys.exit(main())
