"""Which machine this is, and whether a process on it still runs: what tells who left a file behind."""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path


def boot() -> str:
    """Identifies the machine's last start; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def namespace() -> str:
    """Identifies the processes that have numbers in common with this one: a container has numbers of its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@cache
def tag() -> str:
    """Eight hexadecimal digits of a hash of all that, for names of files."""
    parts = (socket.gethostname(), boot(), namespace())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def start_time(pid: int) -> str | None:
    """When a process of this machine started, which tells a reused number apart; None where it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if status[0] in "ZX" else status[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return "running"
