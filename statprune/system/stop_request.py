"""Whether this process was asked to stop: what a signal sets, and what long loops ask between two steps."""

_signal: int | None = None


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


def withdraw() -> None:
    """Forget the request, once it was followed."""
    global _signal
    _signal = None
