"""Whether Triton's kernels can be built here; the modules that hold them are imported only where they can."""

import os
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch
from torch import Tensor

AMPERE = 8  # compute capability
_COMPILERS = (os.environ.get("CC", "cc"), "gcc", "clang")


@cache
def available() -> bool:
    """Whether Triton is installed, and the C compiler and Python's headers that it builds its launcher with."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return find_spec("triton") is not None and headers.exists() and any(map(which, _COMPILERS))


def has_kernel(tensor: Tensor) -> bool:
    """Whether a kernel can work on the tensor: a CPU runs PyTorch's own code, and needs no Triton, slow to import."""
    return tensor.is_cuda and available()


def multiplies_halves(tensor: Tensor) -> bool:
    """Whether a kernel can multiply bfloat16 numbers on the tensor's GPU: those before Ampere have no units for it."""
    return has_kernel(tensor) and torch.cuda.get_device_capability(tensor.device)[0] >= AMPERE
