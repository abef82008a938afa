"""A command that comes to nothing leaves no empty folders behind."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOG = "run.log"  # Hydra opens it in a job's folder before the job can be refused


@contextmanager
def no_empty_folders(roots: Iterable[Path], made: Sequence[Path]) -> Iterator[None]:
    """Remove, at the end, folders that were made in the meantime and are empty, or hold an empty log only.

    Args:
        roots: folders that may be made.
        made: other folders that were, read at the end.
    """
    chains = [_with_parents(root) for root in roots]
    before = {place for chain in chains for place in chain if place.exists()}
    before |= {root / name for root, *_ in chains if root in before for name in _names(root)}
    try:
        yield
    finally:
        for chain in [*map(_with_parents, made), *chains]:
            for place in chain:
                if place in before or not _remove_if_empty(place):
                    break


def _with_parents(folder: Path) -> list[Path]:
    folder = folder.absolute()
    return [folder, *folder.parents]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # no folder, or one that can't be read
        return []


def _remove_if_empty(folder: Path) -> bool:
    """Whether the folder is not there any more."""
    try:
        log = folder / LOG
        if _names(folder) == [LOG] and log.stat().st_size == 0:
            log.unlink()
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # it is not empty
        return False
    return True
