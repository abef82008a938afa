"""Whether this process was asked to stop: what a signal sets, and what long loops ask between two steps."""

from collections.abc import Iterator
from contextlib import contextmanager

_signal: int | None = None
_listeners = 0
_cleans_up = False


def request(number: int) -> None:
    """Ask the process to stop at the next point where work done is work kept.

    Args:
        number: of the signal.
    """
    global _signal
    _signal = number


def requested() -> int | None:
    """The signal that asked this process to stop; None: it goes on."""
    return _signal


@contextmanager
def listening() -> Iterator[None]:
    """The body asks ``requested`` between its steps, or is followed by that: a first signal waits for it."""
    global _listeners
    _listeners += 1
    try:
        yield
    finally:
        _listeners -= 1


def is_listened_to() -> bool:
    """Whether somebody asks ``requested`` soon."""
    return _listeners > 0


@contextmanager
def cleaning_up() -> Iterator[None]:
    """The process puts away what it had begun, which further signals must not cut off."""
    global _cleans_up
    before, _cleans_up = _cleans_up, True
    try:
        yield
    finally:
        _cleans_up = before


def cleans_up() -> bool:
    """Whether the process puts away what it had begun."""
    return _cleans_up
