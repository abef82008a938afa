"""Which tests reach which lines of a module: only those can notice a mutant there, and the fastest go first."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest


@dataclass(frozen=True)
class Reach:
    """What one test reaches when it runs alone.

    Attributes:
        item: the test.
        passes: whether it does.
        seconds: that it takes, with its fixtures.
        lines: of the module that it executes.
    """

    item: pytest.Item
    passes: bool
    seconds: float
    lines: frozenset[int]


def reach(item: pytest.Item, path: str, run: Callable[[pytest.Item], bool]) -> Reach:
    """Run a test in a fork, so that what it executes does not depend on the fixtures of those before it.

    Args:
        item: the test.
        path: file of the module.
        run: runs the test, and tells whether it passes.
    """
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        lines: set[int] = set()
        start, passes = time.monotonic(), False
        try:
            sys.settrace(_tracer(path, lines))
            passes = run(item)
        finally:
            sys.settrace(None)
            Path(f"/dev/fd/{theirs}").write_text(json.dumps([passes, time.monotonic() - start, sorted(lines)]))
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        passes, seconds, reached = json.load(answer)
    os.waitpid(process, 0)
    return Reach(item, passes, seconds, frozenset(reached))


def _tracer(path: str, lines: set[int]) -> Callable[[FrameType, str, object], object]:
    def in_module(frame: FrameType, event: str, argument: object) -> object:
        lines.add(frame.f_lineno)
        return in_module

    def anywhere(frame: FrameType, event: str, argument: object) -> object:
        return in_module(frame, event, argument) if frame.f_code.co_filename == path else None

    return anywhere


def in_order(reaches: list[Reach], lines: range) -> list[Reach]:
    """The tests that reach one of the lines, the fastest first."""
    return sorted((one for one in reaches if not one.lines.isdisjoint(lines)), key=lambda one: one.seconds)
