"""Seconds by phase and by matrix, also on a GPU, which works on after a call has returned."""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


@contextmanager
def phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time spent in the body to ``seconds[name]``."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def time_on(device: torch.device) -> float:
    """Seconds of a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock:
    """Adds the time since the last lap to a phase; on a GPU with events in its queue, so that nothing waits for it.

    Args:
        device: where the work is done.
        earlier: seconds by phase that are counted already.

    Attributes:
        device: where the work is done.
    """

    def __init__(self, device: torch.device, earlier: Mapping[str, float] | None = None):
        self._seconds = dict.fromkeys(("calibrate", "observe", "solve", "propagate"), 0.0) | dict(earlier or {})
        self.device, self._last = device, time.perf_counter()
        self._events: list[tuple[str, torch.cuda.Event]] = [("", self._event())] if device.type == "cuda" else []

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def lap(self, phase: str) -> None:
        """Assign the time since the last lap to ``phase``."""
        if self.device.type == "cuda":
            self._events.append((phase, self._event()))
            return
        now = time.perf_counter()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase; waits for the GPU."""
        if self._events:
            self._events[-1][1].synchronize()
        return self.so_far

    @property
    def so_far(self) -> dict[str, float]:
        """Seconds by phase of the laps that are over; a GPU may still be at work on others."""
        result = dict(self._seconds)
        for (_, first), (phase, last) in itertools.pairwise(self._events):
            if not last.query():
                break
            result[phase] = result.get(phase, 0.0) + first.elapsed_time(last) / 1000
        return result


class Stopwatch:
    """Measures one piece of work from its construction on; on a GPU without waiting for it.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self._device, self._is_gpu = device, device.type == "cuda"
        self._elapsed = 0.0
        if self._is_gpu:
            self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._first.record(torch.cuda.current_stream(device))  # the current device need not be this one
        self._start = time.perf_counter()

    def stop(self) -> None:
        """The work has been handed to the device."""
        if self._is_gpu:
            self._last.record(torch.cuda.current_stream(self._device))
        self._elapsed = time.perf_counter() - self._start

    def seconds(self) -> float:
        """Seconds between start and stop; waits for the GPU."""
        if not self._is_gpu:
            return self._elapsed
        self._last.synchronize()
        return self._first.elapsed_time(self._last) / 1000
