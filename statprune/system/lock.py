"""One writer per folder: a lock file that names the process, and that a dead process can't hold for long."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from statprune.errors import StatpruneError

LOCK = ".lock"
BEAT = 20.0  # seconds between signs of life
SILENCE = 300.0  # seconds without one after which a process on another machine counts as dead


class LockedError(StatpruneError):
    """Another process writes the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder meanwhile; a lock whose process has ended is taken over.

    A job that Slurm has killed and started again elsewhere waits until its former self counts as dead.

    Raises:
        LockedError: a process that is alive holds it.
    """
    path = folder / LOCK
    me = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}
    patience = SILENCE + BEAT if int(os.environ.get("SLURM_RESTART_COUNT", "0")) else 0.0
    end = time.monotonic() + patience
    while (holder := _take(path, me)) is not None:
        if time.monotonic() >= end:
            raise LockedError(
                f"{folder} is being written by process {holder['pid']} on {holder['host']}; "
                f"wait for it, or delete {path} if that process has ended"
            )
        time.sleep(min(BEAT, patience / 10))
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, done), name="statprune-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        _drop(path, me)


def _take(path: Path, me: dict[str, Any]) -> dict[str, Any] | None:
    """Write ``me`` into the lock, or return who holds it."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # for these few lines only: what counts is what the file says
            if not _is_still(path, file.fileno()):
                continue  # its holder dropped it meanwhile
            file.seek(0)
            holder = _read(file.read())
            if holder is not None and _lives(path, holder):
                return holder
            file.truncate(0)
            json.dump(me, file)
            file.flush()
            os.fsync(file.fileno())
            return None


def _drop(path: Path, me: dict[str, Any]) -> None:
    try:
        with path.open("r+", encoding="utf-8") as file:  # NFS locks only what is open for writing
            fcntl.flock(file, fcntl.LOCK_EX)
            if _read(file.read()) == me:
                path.unlink()
    except FileNotFoundError:
        pass


def _read(text: str) -> dict[str, Any] | None:
    """The holder; None where the file was made and not yet, or only half, written by a process that died."""
    try:
        holder = json.loads(text)
    except json.JSONDecodeError:
        return None
    return holder if isinstance(holder, dict) and {"host", "boot", "pid", "started"} <= holder.keys() else None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lives(path: Path, holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname() and holder["boot"] == _boot():
        return _started(holder["pid"]) == holder["started"]
    # the file system's own clock: machines' clocks differ
    now = path.parent / f".now.{os.getpid()}"
    now.touch()
    silence = now.stat().st_mtime - path.stat().st_mtime
    now.unlink()
    return silence < SILENCE


def _started(pid: int) -> str | None:
    """When a process of this machine started, so that a number used again is told apart; None: it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if status[0] in "ZX" else status[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):  # a file system that is away for a moment: the next beat may reach it
            os.utime(path)
