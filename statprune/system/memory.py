"""How much memory the host and the devices have, and how much of it this process takes."""

import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from statprune.errors import first_line
from statprune.system.malloc import release_free_memory

NO_MEMORY = ("not enough memory", "can't allocate memory", "Cannot allocate memory")  # in PyTorch's errors of a CPU
MOST_BETWEEN = 2**24  # bytes between a peak that was just restarted and what is resident


def memory_problem(error: BaseException) -> str | None:
    """That memory was too small, in half a sentence, or None where an error is of another kind."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU's memory is too small ({first_line(error)})"
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        return f"this machine's memory is too small ({first_line(error)})"
    return None


def resident() -> int:
    """Bytes of host memory that this process holds now."""
    status = _status()
    return status["VmRSS"] if status else peak_host()


def peak_host() -> int:
    """Most bytes of host memory that this process held since it started, or since ``restart_peaks``."""
    status = _status()
    unit = 1 if sys.platform == "darwin" else 1024
    return status["VmHWM"] if status else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def restart_peaks(device: torch.device) -> None:
    """Measure peaks from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: peaks count from the process's start
        return


def peak_above(device: torch.device, work: Callable[[], object]) -> int | None:
    """Most bytes that ``work`` held on the device, which may be the host, above what was held before it.

    Memory that was free before is first returned to the system. None where the system can't restart its peak.

    Args:
        device: where the work is done.
        work: to carry out once.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    release_free_memory()
    restart_peaks(device)
    before = resident()
    can_restart = peak_host() <= before + MOST_BETWEEN
    work()
    return max(peak_host() - before, 0) if can_restart else None


def available(device: torch.device) -> int | None:
    """Bytes that can still be taken on the device, which may be the host; None where the system does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_host()


def available_host() -> int | None:
    """Bytes that can be taken before the host swaps or a job's limit is met; None where the system says neither."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    limits = control_group_room(_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    return min([*limits, *([int(match[1]) * 1024] if match else [])], default=None)


def control_group_room(groups: str, root: Path) -> list[int]:
    """Bytes left under each memory limit that a container or a Slurm job puts on this process.

    Args:
        groups: lines as in /proc/self/cgroup.
        root: where the control groups are mounted, of either version.
    """
    room = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        lowest = top if ".." in path else top / path.lstrip("/")  # '..': outside of what a container is shown
        for folder in (folder for folder in (lowest, *lowest.parents) if folder.is_relative_to(top)):
            try:
                limit, used = ((folder / name).read_text().strip() for name in names)
                stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # the topmost group has no limit, and a container's own is at the root
                continue
            if limit != "max":
                # version 1 counts the groups below in a number of its own, which the usage includes
                cached = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
                room.append(int(limit) - int(used) + int(cached))
    return room


def _status() -> dict[str, int]:
    text = _text(Path("/proc/self/status"))
    return {name: int(value) * 1024 for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}


def _text(path: Path) -> str:
    """The file's content; empty where there is no file."""
    try:
        return path.read_text()
    except OSError:
        return ""
