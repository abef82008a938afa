"""Which device a process computes on."""

import torch

from statprune.errors import ModelError
from statprune.system.distributed import local_rank, local_size, size


def choose_device(name: str) -> torch.device:
    """The device that a name means to this process; a GPU becomes the current one.

    Args:
        name: auto (a GPU if there is one), cpu, cuda or cuda:i.

    Raises:
        ModelError: several processes would share one device.
    """
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if device.type == "cuda" and size() > 1:
        if device.index is not None:
            raise ModelError(
                f"device={name} is one device, but {size()} processes each need their own; give device=cuda"
            )
        if local_size() > torch.cuda.device_count():  # counted by machine, so that all of its processes agree
            raise ModelError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs; start fewer"
            )
        device = torch.device("cuda", local_rank())
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The GPU's product name, or ``cpu``: what tells results of different devices apart."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
