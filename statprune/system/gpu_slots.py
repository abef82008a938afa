"""A GPU for each of several worker processes on one machine whose launcher shows all GPUs to every worker."""

import errno
import os
import socket
from itertools import count

_held_sockets: list[socket.socket] = []


def visible_gpus() -> int:
    """How many GPUs this process sees."""
    import torch  # slow to import: not for --help or a typo

    return torch.cuda.device_count()


def take_gpu() -> None:
    """Make a GPU that no sibling process has the current device of this process, until it ends.

    Where there are more siblings than GPUs, they are spread evenly. A second call does nothing.
    """
    import torch  # slow to import: not for --help or a typo

    gpus = torch.cuda.device_count()
    if gpus and not _held_sockets:
        torch.cuda.set_device(_take_slot(f"statprune-{os.getppid()}") % gpus)


def _take_slot(group: str) -> int:
    """The lowest number that no living process of ``group`` has."""
    for slot in count():
        # Linux's abstract socket names leave no file behind and vanish with the process, however it ends
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0{group}-{slot}")
        except OSError as error:
            name.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _held_sockets.append(name)
        return slot
    raise AssertionError("count never ends")
