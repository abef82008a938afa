"""Write files that are whole or not there."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from statprune.system.machine import start_time, tag
from statprune.system.stop_request import cleaning_up

OWNER = re.compile(r"-([0-9a-f]{8})-(\d+)(?=-|$)")
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)")  # what temporary files of ours are called


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` at the end.

    Readers see the old file or the whole new one; a failure leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{owner_tag()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder``, which takes that name at the end.

    A failure or an interruption leaves nothing behind, and what a process has left that was killed goes now.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it can't be made.
    """
    if os.path.lexists(folder):
        raise FileExistsError(errno.EEXIST, "something of that name exists already", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    temporary = folder.with_name(f".{folder.name}.{owner_tag()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of an earlier process that had our number, as in a container
    try:
        temporary.mkdir()
        yield temporary
        if os.path.lexists(folder):
            raise FileExistsError(errno.EEXIST, "something of that name exists by now", str(folder))
        temporary.rename(folder)
    except BaseException:
        with cleaning_up():
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name in a folder of the same filesystem, or copy it where that can't be done."""
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        shutil.copyfile(source, target)


def flush(path: Path) -> None:
    """Have a file's content, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically and flush it to the disk. Numbers that are not finite become null."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(finite(value), file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def remove_abandoned(folder: Path) -> None:
    """Remove what ``replacing`` and ``replacing_folder`` have begun in processes of this machine that have ended."""
    for path in folder.glob(".*"):
        match = TEMPORARY.fullmatch(path.name)
        if match is not None and match[1] == tag() and start_time(int(match[2])) is None:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove_dead_folders(parent: Path) -> None:
    """Remove folders below ``parent`` whose names say that a process of this machine made them that has ended.

    Such names hold ``owner_tag``, between hyphens or at the end.
    """
    for path in parent.glob("*-*-*"):
        match = OWNER.search(path.name)
        if match is not None and match[1] == tag() and start_time(int(match[2])) is None and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def owner_tag() -> str:
    """For names of temporary files and folders: which machine, and which of its processes, made them."""
    return f"{tag()}-{os.getpid()}"


def finite(value: object) -> object:
    """Nested plain values with None in place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
