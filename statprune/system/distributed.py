"""Several processes, one for each device, as torchrun starts them; one process alone is rank 0 of 1."""

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from statprune.errors import StatpruneError

T = TypeVar("T")
# what gloo, NCCL and the store say when a process that they exchange with has ended
CONNECTION_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
)
FIRST_WAIT = timedelta(minutes=10)  # processes that torchrun or Slurm start together have read their libraries by then
LONGEST_WAIT = timedelta(hours=2)  # one process may load or evaluate for long while the others wait
_control_group: list[dist.ProcessGroup] = []  # beside the group that exchanges the work


def rank() -> int:
    """This process's number, as torchrun sets it; also before ``start``."""
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
    """Join the other processes, over NCCL on GPUs and gloo on CPUs; a second call does nothing.

    Raises:
        StatpruneError: not all of them have started.
    """
    if size() == 1 or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # objects are exchanged without the GPU
    dist.init_process_group(backend, store=_met(), rank=rank(), world_size=size(), timeout=LONGEST_WAIT)
    _control_group.append(dist.new_group(backend="gloo", timeout=LONGEST_WAIT))


def _met() -> dist.Store:
    """The store of this job, once every process has reached it.

    One that was killed before would else be waited for as long as for any exchange.

    Raises:
        StatpruneError: one is missing.
    """
    try:
        store: dist.Store = next(iter(rendezvous("env://", timeout=FIRST_WAIT)))[0]
        store.set(f"here/{rank()}", "")
        store.wait([f"here/{number}" for number in range(size())], FIRST_WAIT)
    except dist.DistError as error:
        raise StatpruneError(
            f"the {size()} processes of this job did not all start within {FIRST_WAIT.total_seconds():.0f} seconds; "
            "one may have been killed, and its own messages say more: start the same command again"
        ) from error
    store.set_timeout(LONGEST_WAIT)
    return store


def all_arrive(seconds: float | None = None) -> bool:
    """Whether every process reaches this call.

    It is separate from all other exchanges, so that a process can wait for others that are in the middle of one.

    Args:
        seconds: how long to wait for the others; None: as long as for any exchange.
    """
    if not _control_group:
        return True
    try:
        dist.monitored_barrier(_control_group[0], LONGEST_WAIT if seconds is None else timedelta(seconds=seconds))
    except RuntimeError:
        return False
    return True


def lost_process(error: BaseException) -> str | None:
    """A sentence where an error says that another process of this job has ended, or None."""
    if size() == 1 or not any(words in str(error).lower() for words in CONNECTION_LOST):
        return None
    return (
        "another process of this job has ended, killed perhaps for want of memory; its own messages say more, and the "
        "same command goes on with what was kept"
    )


def stop() -> None:
    """Leave the other processes."""
    _control_group.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def own_part(count: int) -> slice:
    """Which of ``count`` ordered things belong to this process; none where there are fewer things than processes."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def gathered(value: T) -> list[T]:
    """Every process's value, by rank; any picklable thing."""
    if size() == 1:
        return [value]
    values: list[T] = [value] * size()
    dist.all_gather_object(values, value)
    return values


def gathered_tensors(tensor: Tensor) -> list[Tensor]:
    """Every process's tensor of this shape and dtype, by rank."""
    tensors = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(tensors, tensor.contiguous())
    return tensors


def sum_over_processes(tensor: Tensor) -> None:
    """Replace the tensor by the sum of all processes' tensors, the same to the last bit everywhere."""
    dist.all_reduce(tensor)


def broadcast(tensor: Tensor, source: int) -> None:
    """Replace the tensor by the one of the process ``source``."""
    if size() > 1:
        dist.broadcast(tensor, source)


def assign_owners(costs: list[float]) -> list[int]:
    """A process for each piece of work, so that all have about as much; the same answer in every process."""
    loads, owners = [0.0] * size(), [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        owners[index] = min(range(size()), key=lambda process: loads[process])
        loads[owners[index]] += costs[index]
    return owners
