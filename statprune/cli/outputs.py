"""Places that a verb is to write to, looked at before it works for minutes."""

import os
import tempfile
from pathlib import Path

from statprune.cli.folders import no_empty_folders
from statprune.errors import StatpruneError


def check_folder(folder: Path | None, option: str = "") -> None:
    """See whether files can be written into a folder, which is made for that and removed again where it is new.

    Args:
        folder: None: nothing is to be written.
        option: that named it, such as ``--picture``.

    Raises:
        StatpruneError: they can't.
    """
    if folder is not None and (problem := _problem(folder)) is not None:
        raise StatpruneError(f"{option} {folder} can't be written ({problem}); give another folder".lstrip())


def check_file(path: Path | None, option: str = "") -> None:
    """See whether a file can be written.

    Args:
        path: of the file; None: none is to be written.
        option: that named it, such as ``--csv``.

    Raises:
        StatpruneError: it can't.
    """
    if path is None:
        return
    if path.is_dir():
        problem: str | None = "it is a folder"
    elif path.exists():
        problem = None if os.access(path, os.W_OK) else "Permission denied"
    else:
        problem = _problem(path.parent)
    if problem is not None:
        raise StatpruneError(f"{option} {path} can't be written ({problem}); give another path".lstrip())


def _problem(folder: Path) -> str | None:
    """Why a file can't be made in a folder, or None; only trying tells, of /proc, full disks and root alike."""
    try:
        with no_empty_folders([folder], []):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return None
    except OSError as error:
        return error.strerror or type(error).__name__
