"""A GPU for each of several worker processes on one machine, where what started them leaves all to the first one."""

import errno
import os
import socket
from itertools import count

_held: list[socket.socket] = []


def visible_gpus() -> int:
    import torch  # slow: not for --help or a typo

    return torch.cuda.device_count()


def take_gpu() -> None:
    """Make a GPU the current device of this process, until it ends: one that none of its siblings has.

    Where there are more siblings than GPUs, they are spread evenly. A second call does nothing.
    """
    import torch  # slow: not for --help or a typo

    gpus = torch.cuda.device_count()
    if gpus and not _held:
        torch.cuda.set_device(_take_slot(f"statprune-{os.getppid()}") % gpus)


def _take_slot(group: str) -> int:
    """The lowest number that no living process of ``group`` has."""
    for slot in count():
        # Linux's abstract names leave no file behind, and go with the process however it ends
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0{group}-{slot}")
        except OSError as error:
            name.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _held.append(name)
        return slot
    raise AssertionError("count never ends")
