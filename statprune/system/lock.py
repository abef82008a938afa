"""One writer per folder: a lock file that names its process, and that a dead process can't hold for long."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from statprune.errors import StatpruneError

LOCK = ".lock"
BEAT = 20.0  # seconds between signs of life
SILENCE = 300.0  # seconds without one after which a process on another machine counts as dead


class LockedError(StatpruneError):
    """Another process writes the folder."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: its machine.
        boot: identifies that machine's last start.
        pid: its number there.
        started: when it started, which tells a reused number apart; None where it has ended.
    """

    host: str
    boot: str
    pid: int
    started: str | None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder while the body runs; the lock of a process that has ended is taken over.

    A job that Slurm has killed and started again elsewhere waits until its former self counts as dead.

    Raises:
        LockedError: a living process holds it.
    """
    path = folder / LOCK
    me = Holder(socket.gethostname(), _boot(), os.getpid(), _start_time(os.getpid()))
    patience = SILENCE + BEAT if int(os.environ.get("SLURM_RESTART_COUNT", "0")) else 0.0
    end = time.monotonic() + patience
    while (holder := _take(path, me)) is not None:
        if time.monotonic() >= end:
            raise LockedError(
                f"{folder} is being written by process {holder.pid} on {holder.host}; "
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


def _take(path: Path, me: Holder) -> Holder | None:
    """Write ``me`` into the lock, or return the process that holds it."""
    while True:
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # for these few lines only: what counts is what the file says
            if not _is_current(path, file.fileno()):
                continue  # its holder dropped it in the meantime
            file.seek(0)
            holder = _parse(file.read())
            if holder is not None and _is_alive(path, holder):
                return holder
            file.truncate(0)
            json.dump(asdict(me), file)
            file.flush()
            os.fsync(file.fileno())
            return None


def _drop(path: Path, me: Holder) -> None:
    try:
        with path.open("r+", encoding="utf-8") as file:  # NFS only locks files that are open for writing
            fcntl.flock(file, fcntl.LOCK_EX)
            if _parse(file.read()) == me:
                path.unlink()
    except FileNotFoundError:
        pass


def _parse(text: str) -> Holder | None:
    """The holder; None where a process died before it had written itself into the file."""
    try:
        values = json.loads(text)
        return Holder(values["host"], values["boot"], values["pid"], values["started"])
    except (json.JSONDecodeError, TypeError, KeyError):
        return None


def _is_current(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_alive(path: Path, holder: Holder) -> bool:
    if holder.host == socket.gethostname() and holder.boot == _boot():
        return _start_time(holder.pid) == holder.started
    # compare times by the file system's own clock: machines' clocks differ
    now = path.parent / f".now.{os.getpid()}"
    now.touch()
    silence = now.stat().st_mtime - path.stat().st_mtime
    now.unlink()
    return silence < SILENCE


def _start_time(pid: int) -> str | None:
    """When a process of this machine started, which tells a reused number apart; None where it has ended."""
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
        with suppress(OSError):  # the file system may be away for a moment: the next beat can reach it
            os.utime(path)
