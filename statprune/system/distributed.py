"""Several processes, one for each device, as torchrun starts them; one process alone is rank 0 of 1."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LONGEST = timedelta(hours=2)  # one process may load or evaluate for long while the others wait
_control: list[dist.ProcessGroup] = []  # beside the group that the work goes through


def rank() -> int:
    """This process's number; torchrun's, also before ``start``."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine: the GPU it uses."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


def local_size() -> int:
    """How many processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


def start(device: torch.device) -> None:
    """Join the other processes, over NCCL on GPUs and gloo on CPUs; a second call does nothing."""
    if size() == 1 or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # what is no tensor goes without the GPU
    dist.init_process_group(backend, timeout=LONGEST)
    _control.append(dist.new_group(backend="gloo", timeout=LONGEST))


def together(seconds: float | None = None) -> bool:
    """Whether every process comes here; apart from all other exchanges, so that one can wait for those in the midst.

    Args:
        seconds: to wait for the others; None: as long as for anything.
    """
    if not _control:
        return True
    try:
        dist.monitored_barrier(_control[0], LONGEST if seconds is None else timedelta(seconds=seconds))
    except RuntimeError:
        return False
    return True


def stop() -> None:
    """Leave the other processes."""
    _control.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def share(count: int) -> slice:
    """Which of ``count`` things in order are this process's; none where there are fewer than processes."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def gathered(value: Any) -> list[Any]:
    """Every process's value, by rank; any picklable thing."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def gathered_tensors(tensor: Tensor) -> list[Tensor]:
    """Every process's tensor of this shape and dtype, by rank."""
    parts = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


def add_up(tensor: Tensor) -> None:
    """Replace the tensor by the sum of all processes' tensors, the same to the last bit everywhere."""
    dist.all_reduce(tensor)


def spread(tensor: Tensor, source: int) -> None:
    """Replace the tensor by the one of the process ``source``."""
    if size() > 1:
        dist.broadcast(tensor, source)


def owners(costs: list[float]) -> list[int]:
    """A process for each of several pieces of work, so that all have about as much; the same answer everywhere."""
    loads, result = [0.0] * size(), [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        result[index] = min(range(size()), key=lambda process: loads[process])
        loads[result[index]] += costs[index]
    return result
