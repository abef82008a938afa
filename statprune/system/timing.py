"""Seconds by phase and by layer, also on a GPU, which works on after a call returned."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what is done within to ``seconds``."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


class Clock:
    """Adds the time since the last lap to a phase; on a GPU by events in its queue, so that nothing waits for it."""

    def __init__(self, device: torch.device):
        self._seconds = dict.fromkeys(("calibrate", "observe", "solve", "propagate"), 0.0)
        self._device, self._last = device, time.perf_counter()
        self._events: list[tuple[str, torch.cuda.Event]] = [("", self._event())] if device.type == "cuda" else []

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def lap(self, phase: str) -> None:
        """What was done since the last lap belongs to ``phase``."""
        if self._device.type == "cuda":
            self._events.append((phase, self._event()))
            return
        now = time.perf_counter()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> dict[str, float]:
        """By phase; waits for the GPU."""
        result = dict(self._seconds)
        for (_, first), (phase, last) in itertools.pairwise(self._events):
            last.synchronize()
            result[phase] = result.get(phase, 0.0) + first.elapsed_time(last) / 1000
        return result


def stopwatch(device: torch.device) -> Callable[[], Any]:
    """Starts now. Call the result for the seconds since, or on CUDA for a function that waits and gives them."""
    if device.type != "cuda":
        start = time.perf_counter()
        return lambda: time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()

    def stop() -> Callable[[], float]:
        last.record()

        def seconds() -> float:
            last.synchronize()
            return first.elapsed_time(last) / 1000

        return seconds

    return stop
