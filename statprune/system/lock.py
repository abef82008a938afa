"""One writer per folder: a lock file that names its process, and that a dead process can't hold for long."""

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from statprune.errors import StatpruneError
from statprune.system.disk import ADVICE, FULL
from statprune.system.machine import boot, namespace, start_time

log = logging.getLogger(__name__)
LOCK = ".lock"
BEAT = 20.0  # seconds between signs of life
SILENCE = 300.0  # seconds without one after which a process whose number can't be looked up counts as dead
NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without flock answer


class LockedError(StatpruneError):
    """Another process writes the folder, or it can't be locked."""


class LostLockError(StatpruneError):
    """Another process has taken a folder over that this one had locked."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: its machine.
        boot: identifies that machine's last start.
        pid: its number there.
        started: when it started, which tells a reused number apart; None where it has ended.
        namespace: of its number, such as a container's; None in locks of older versions.
    """

    host: str
    boot: str
    pid: int
    started: str | None
    namespace: str | None = None

    @property
    def is_neighbour(self) -> bool:
        """Whether its number means a process that this one can look up."""
        ours = (socket.gethostname(), boot(), self.namespace if self.namespace is None else namespace())
        return (self.host, self.boot, self.namespace) == ours


@dataclass(frozen=True)
class Lock:
    """A lock that this process has taken.

    Attributes:
        path: of its file.
        holder: this process.
    """

    path: Path
    holder: Holder

    def still_ours(self) -> bool:
        """Whether no other process has taken the folder over, or removed the lock, since."""
        try:
            return _parse(self.path.read_bytes()) == self.holder
        except (OSError, UnicodeDecodeError):
            return False


_held: dict[Path, Lock] = {}  # by folder


@contextmanager
def locked(folder: Path, patience: float | None = None) -> Iterator[Lock]:
    """Hold the folder while the body runs; the lock of a process that has ended is taken over.

    A job that Slurm has killed and started again elsewhere waits until its former self counts as dead.

    Args:
        folder: to be written; it is there.
        patience: seconds to wait for another process; None: none, but for such a job.

    Raises:
        LockedError: a living process holds it, or it can't be locked.
    """
    path = folder / LOCK
    me = Holder(socket.gethostname(), boot(), os.getpid(), start_time(os.getpid()), namespace())
    if patience is None:
        patience = SILENCE + BEAT if int(os.environ.get("SLURM_RESTART_COUNT", "0")) else 0.0
    end = time.monotonic() + patience
    while (holder := _taken(path, me)) is not None:
        if time.monotonic() >= end:
            raise LockedError(_held_by(holder, folder, path))
        time.sleep(min(BEAT, patience / 10))
    lock = _held[folder.resolve()] = Lock(path, me)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, done), name="statprune-lock", daemon=True)
    beat.start()
    try:
        yield lock
    finally:
        done.set()
        beat.join()
        _held.pop(folder.resolve(), None)
        _drop(lock)


def is_lost(folder: Path) -> bool:
    """Whether this process had locked the folder, and another one has taken it over since."""
    lock = _held.get(folder.resolve())
    return lock is not None and not lock.still_ours()


def check_ours(folder: Path) -> None:
    """Nothing where this process still holds the folder, or never locked it.

    Raises:
        LostLockError: another process has taken it over.
    """
    if is_lost(folder):
        if not folder.is_dir():
            raise LostLockError(f"{folder} was removed while the run went on; start the same command again")
        raise LostLockError(
            f"another process has taken over {folder} while this one gave no sign of life, or has deleted its lock: "
            "nothing more is written there; wait for that process, or start the same command again"
        )


def _held_by(holder: Holder, folder: Path, path: Path) -> str:
    silence = "" if holder.is_neighbour else f" (it counts as dead after {SILENCE:.0f} seconds without a sign of life)"
    return (
        f"{folder} is being written by process {holder.pid} on {holder.host}{silence}; "
        f"wait for it, or delete {path} if that process has ended"
    )


def _taken(path: Path, me: Holder) -> Holder | None:
    """Write ``me`` into the lock, or return the process that holds it.

    Raises:
        LockedError: there can be no lock here.
    """
    try:
        while True:
            descriptor, is_new = _opened(path)
            with os.fdopen(descriptor, "r+b") as file:
                has_flock = _flock(descriptor)  # for these few lines only: what counts is what the file says
                if not _is_current(path, descriptor):
                    continue  # its holder dropped it in the meantime
                holder = _parse(file.read())
                if holder is not None and _is_alive(path, holder):
                    return holder
                if not has_flock:
                    _check_new(path, is_new)
                _write(descriptor, me)
                return None
    except (OSError, UnicodeDecodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        advice = ADVICE[number] if number in FULL else "remove it, or give another folder"
        raise LockedError(f"{path} can't be used as a lock ({_reason(error)}); {advice}") from error


def _check_new(path: Path, is_new: bool) -> None:
    """Whether a lock can be taken on a file system without flock: only making the file leaves no room for two."""
    if not is_new:  # two processes might take it over at once
        raise LockedError(
            f"{path} is the lock of a process that has ended, and its file system has no flock to take it "
            "over safely; delete it if nothing writes there, or give another folder"
        )
    log.warning("%s has no flock: a lock that a killed process leaves has to be deleted by hand", path)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no text, and so no lock of statprune's"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor of the lock's file, and whether it was made; links are not followed.

    Raises:
        OSError: it can't be opened, or is no regular file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):  # dropped in the meantime
            descriptor = os.open(path, flags)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor, False
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file")


def _flock(descriptor: int) -> bool:
    """Lock an open file against other processes, if its file system can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False
    return True


def _write(descriptor: int, me: Holder) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(me)).encode(), 0)
    os.fsync(descriptor)


def _drop(lock: Lock) -> None:
    with suppress(OSError, UnicodeDecodeError):
        descriptor = os.open(lock.path, os.O_RDWR | os.O_NOFOLLOW)  # NFS only locks files that are open for writing
        with os.fdopen(descriptor, "rb") as file:
            _flock(descriptor)
            if _parse(file.read()) == lock.holder:
                lock.path.unlink()


def _parse(content: bytes) -> Holder | None:
    """The holder; None where a process died before it had written itself into the file.

    Raises:
        UnicodeDecodeError: it is no text, and so nothing that a process of ours began to write.
    """
    try:
        values = json.loads(content.decode())
        pid, started, place = values["pid"], values["started"], values.get("namespace")
        known = isinstance(pid, int) and pid > 0 and isinstance(started, str | None)
        return Holder(str(values["host"]), str(values["boot"]), pid, started, place) if known else None
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _is_current(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_alive(path: Path, holder: Holder) -> bool:
    if holder.is_neighbour:
        return start_time(holder.pid) == holder.started
    # compare times by the file system's own clock: machines' clocks differ
    now = path.parent / f".now.{os.getpid()}"
    try:
        now.touch()
        silence = now.stat().st_mtime - path.stat().st_mtime
    finally:
        now.unlink(missing_ok=True)
    return silence < SILENCE


def _beat(lock: Lock, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):  # the file system may be away for a moment: the next beat can reach it
            if lock.still_ours():  # it says nothing for another process
                os.utime(lock.path)
