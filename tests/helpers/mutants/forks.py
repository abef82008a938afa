"""Runs a module's tests in forks, with a mutant in the module's place."""

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
import hypothesis
import pytest
import torch

from tests.helpers.mutants.operators import Mutant
from tests.helpers.mutants.reach import Reach, in_order, reach

# what takes long to import, once for all forks; nothing of ours
for library in ("omegaconf", "tokenizers", "transformers.models.llama.modeling_llama"):
    importlib.import_module(library)

ROOT = Path(__file__).parents[3]


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

    @property
    def path(self) -> Path:
        """The module's file."""
        return ROOT / "statprune" / f"{self.module}.py"


def prepare() -> None:
    """One thread, and tests that are the same for every mutant; once, before the first fork."""
    torch.set_num_threads(1)
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=phases, max_examples=25)


def unnoticed(target: Target, mutants: Sequence[Mutant]) -> list[Mutant]:
    """The mutants with which all of the module's tests pass."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        _passes(lambda: _run_tests(target, _InBodies(target, mutants, found)), float("inf"))
        if not found.exists():
            raise SystemExit(f"{target.module} has no tests, or they fail unmutated: {' '.join(target.tests)}")
        answer = json.loads(found.read_text())
    limit = 5 + 5 * answer["seconds"]
    elsewhere = [mutant for mutant in mutants if not mutant.is_in_body]
    left = [mutant for mutant in elsewhere if _passes(lambda mutant=mutant: _run_imported(target, mutant.code), limit)]
    print(f"{target.module}: {answer['seconds']:.0f} s of tests; {time.monotonic() - start:.0f} s", flush=True)
    return left + [mutants[index] for index in answer["left"]]


class _InBodies:
    """A pytest plugin that runs the tests it has collected once for each mutant, in forks: nothing is imported anew."""

    def __init__(self, target: Target, mutants: Sequence[Mutant], found: Path):
        self._target, self._mutants, self._found = target, mutants, found
        self._functions: list[FunctionType] = []  # the module's, once it is imported

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        left = []
        path = str(self._target.path)
        functions = [value for value in gc.get_objects() if isinstance(value, FunctionType)]
        self._functions = [function for function in functions if function.__code__.co_filename == path]
        gc.freeze()  # what is there already is not looked through, and so not copied, in every fork
        reaches = [reach(item, path, lambda item: _run_items([item], session)) for item in session.items]
        if session.testsfailed or not reaches or not all(test.passes for test in reaches):
            return True
        for index, mutant in enumerate(self._mutants):
            if not mutant.is_in_body:
                continue
            tests = in_order(reaches, mutant.lines)
            limit = 5 + 5 * sum(test.seconds for test in tests)
            if _passes(lambda mutant=mutant, tests=tests: self._tested(session, mutant.code, tests), limit):
                left.append(index)
        self._found.write_text(json.dumps({"left": left, "seconds": sum(test.seconds for test in reaches)}))
        return True

    def _tested(self, session: pytest.Session, code: CodeType, tests: Sequence[Reach]) -> bool:
        mutated = {(part.co_qualname, part.co_firstlineno): part for part in _parts(code)}
        for function in self._functions:  # each gets the body that it has in the mutated module
            own = function.__code__
            function.__code__ = mutated.get((own.co_qualname, own.co_firstlineno), own)
        return _run_items([test.item for test in tests], session)


def _run_items(items: Sequence[pytest.Item], session: pytest.Session) -> bool:
    """Whether the tests pass; False at the first that fails."""
    for item, following in zip(items, [*items[1:], None], strict=True) if items else ():
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def _parts(code: CodeType) -> Iterator[CodeType]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value
            yield from _parts(value)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from mutated code."""

    def __init__(self, name: str, path: Path, code: CodeType):
        self._name, self._path, self._code = name, path, code

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def _run_imported(target: Target, code: CodeType) -> bool:
    sys.meta_path.insert(0, _Mutated("statprune." + target.module.replace("/", "."), target.path, code))
    return _run_tests(target)


def _run_tests(target: Target, plugin: _InBodies | None = None) -> bool:
    named = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    options = ["-x", "-q", *named, "--hypothesis-profile", "mutants", *(str(ROOT / test) for test in target.tests)]
    return pytest.main(options, plugins=[plugin] if plugin else []) == pytest.ExitCode.OK


def _passes(work: Callable[[], bool], limit: float) -> bool:
    """What ``work`` returns in a fork; False where it fails, or takes longer than ``limit`` seconds."""
    process = os.fork()
    if process == 0:
        status = 1
        with contextlib.suppress(BaseException):
            log = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            status = 0 if work() else 1
        os._exit(status)
    end = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > end:
            os.kill(process, 9)
            os.waitpid(process, 0)
            return False
        time.sleep(0.005)
