"""A small disk that is filled at one stage of a run, and jobs on it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from statprune.pruning import loop
from statprune.runs.job import Outcome, carry_out
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job

FULL = OSError(28, "No space left on device")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; OSError where this process may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise OSError(error.stderr) from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on the disk."""
    with (disk / "filler").open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def before(monkeypatch: Any, place: str, act: Callable[[], object]) -> None:
    """Have something done before each call of a function."""
    module, _, name = place.rpartition(".")
    owner = _owner(module)
    original = getattr(owner, name)

    def acting(*arguments: Any, **keywords: Any) -> Any:
        act()
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, acting)


def failing_once(monkeypatch: Any, place: str, call: int = 1) -> None:
    """Have one call of a function end as on a full disk."""
    calls = iter(range(1, 1000))

    def act() -> None:
        if next(calls) == call:
            raise FULL

    before(monkeypatch, place, act)


def carried_out(model: Path, folder: Path, *overrides: str) -> Outcome:
    """A job on the tiny model, as the command does it."""
    composed = OmegaConf.create(tiny_job(model, *overrides).resolved())
    folder.mkdir(exist_ok=True)
    return carry_out(composed, folder, Workbench(holds_model=False), others_follow=False)


def counted_matrices(monkeypatch: Any) -> list[str]:
    """The matrices that are pruned from now on."""
    pruned: list[str] = []
    original = loop._prune_matrix

    def counting(block: Any, matrix: Any, *others: Any) -> Any:
        pruned.append(matrix.name)
        return original(block, matrix, *others)

    monkeypatch.setattr(loop, "_prune_matrix", counting)
    return pruned


def _owner(place: str) -> Any:
    import importlib

    module, _, name = place.rpartition(".")
    if name[:1].isupper():
        return getattr(importlib.import_module(module), name)
    return importlib.import_module(place)
