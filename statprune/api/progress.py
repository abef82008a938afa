"""What a caller who asked for it sees while a model is worked on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from statprune.system.console import CONSOLE, progress
from statprune.system.distributed import rank


class Advance(Protocol):
    """Called with the number of steps done, and what there is to say of the last one."""

    def __call__(self, done: int, note: str = "") -> None:
        """Show it."""


@contextmanager
def shown_progress(title: str, steps: int, is_shown: bool) -> Iterator[Advance]:
    """A bar on a terminal, elsewhere, as in a notebook, a line for each step; both on standard error.

    Args:
        title: what is done, such as ``pruning blocks``.
        steps: how many there are.
        is_shown: False: show nothing.
    """

    def silent(done: int, note: str = "") -> None:
        """Say nothing."""

    def line(done: int, note: str = "") -> None:
        CONSOLE.print(f"{title}: {done} of {steps}{note}", markup=False, highlight=False, soft_wrap=True)

    if not is_shown or rank() != 0:
        yield silent
    elif not CONSOLE.is_terminal:
        yield line
    else:
        with progress(title, steps) as advance:

            def bar(done: int, note: str = "") -> None:
                advance(done)

            yield bar
