"""Which device a process computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from statprune.errors import ModelError
from statprune.system.distributed import local_rank, local_size, size

UNKNOWN, UNSUPPORTED, ABSENT = "is unknown", "is not supported", "is not there"  # complaints about a device's name


def device_complaint(name: str) -> str | None:
    """What is wrong with a device's name on this machine, as the end of a clause: "is not there"; None: nothing.

    Args:
        name: auto, cpu, cuda or cuda:i.
    """
    try:
        device = torch.device("cpu" if name == "auto" else name)
    except RuntimeError:
        return UNKNOWN
    if device.type not in ("cpu", "cuda"):
        return UNSUPPORTED
    is_absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    return ABSENT if is_absent else None


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


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 numbers as what they are, whatever the program around us has told PyTorch.

    ``torch.set_float32_matmul_precision("high")`` and the settings by backend allow a GPU TF32, with 10 bits of
    mantissa, and a CPU bfloat16: statistics, solvers and losses would be off in the fourth digit and no record would
    say so. The caller's settings are put back.
    """
    named = (torch.backends.cuda, torch.backends.mkldnn)
    matmuls = [backend.matmul for backend in named if hasattr(backend, "matmul")]
    backends = [matmul for matmul in matmuls if hasattr(matmul, "fp32_precision")]  # since torch 2.9
    own = [backend.fp32_precision for backend in backends]
    before = _matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for backend, precision in zip(backends, own, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Let a GPU's tensor cores multiply float32 numbers as TF32, and put PyTorch's setting back."""
    matmul = torch.backends.cuda.matmul
    name, allowed = ("fp32_precision", "tf32") if hasattr(matmul, "fp32_precision") else ("allow_tf32", True)
    before = getattr(matmul, name)
    setattr(matmul, name, allowed)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def _matmul_precision() -> str:
    """PyTorch's older setting, of all backends; it can't be read where only the newer ones were set."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"
