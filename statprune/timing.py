"""Seconds by phase and by layer, also on a GPU, which works on after a call returned."""

import time
from collections.abc import Callable
from typing import Any

import torch


class Clock:
    """Adds the time since the last lap to a phase.

    Attributes:
        seconds: by phase.
    """

    def __init__(self, device: torch.device):
        self.seconds = dict.fromkeys(("calibrate", "observe", "solve", "propagate"), 0.0)
        self._device, self._last = device, time.perf_counter()

    def lap(self, phase: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


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
