"""Keep glibc from holding on to freed memory; with other C libraries nothing happens."""

import ctypes
from contextlib import suppress

RETURNED_AT_ONCE = 5 * 2**20  # bytes: a freed block this large goes back to the system while a model is pruned

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def return_freed_blocks(size: int, keep_at_most: int | None = None) -> None:
    """Return freed blocks of at least ``size`` bytes to the system at once.

    By default glibc keeps blocks below a threshold that it raises up to 32 MiB, and blocks that come and go fragment
    that memory: it then grows with the number of decoder blocks (benchmarks/growth.py). Taking memory anew costs
    time, which is why blocks below a few MiB are better kept.

    Args:
        size: smallest block that is returned at once, in bytes.
        keep_at_most: bytes of smaller freed blocks that glibc may keep; None leaves its own limit.
    """
    _call("mallopt", M_MMAP_THRESHOLD, size)
    if keep_at_most is not None:
        _call("mallopt", M_TRIM_THRESHOLD, keep_at_most)


def release_free_memory() -> None:
    """Return all memory that is free now to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
