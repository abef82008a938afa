"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere, always on standard error."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from tqdm import tqdm

LIBRARIES = ("transformers", "accelerate", "py.warnings")  # their warnings go to the log
CONSOLE = Console(stderr=True)  # one for bars and lines, so that lines go above a bar
LINE_EVERY = 60  # seconds, where there is no terminal for a bar
_WAITING: list[Progress] = []  # what is shown at present


class SilentBar(tqdm):
    """A tqdm bar that draws nothing, for libraries whose bars no setting reaches."""

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **(kwargs | {"disable": True}))


class BarInLine(SilentBar):
    """One that fills the line of ``waiting`` in place of its own."""

    def __iter__(self) -> Iterator[object]:
        for done, item in enumerate(super().__iter__(), start=1):
            yield item
            for lines in _WAITING:
                lines.update(lines.task_ids[0], completed=done, total=len(self.iterable))


class _KnownBar(BarColumn):
    """A bar, where it is known how much there is to do."""

    def render(self, task: Task) -> ProgressBar:
        return super().render(task) if task.total is not None else ProgressBar(width=0)


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left on a terminal, elsewhere a line each minute.

    Yields:
        A function that takes the number of items done.
    """
    if not CONSOLE.is_terminal:
        yield _line_each_minute(name, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as bars:
        task = bars.add_task(name, total=total)
        yield lambda done: bars.update(task, completed=done)


def _line_each_minute(name: str, total: int) -> Callable[[int], None]:
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            logging.getLogger("statprune").info("%s: %d of %d", name, done, total)

    return tell


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on a terminal what is being waited for, and since when; with a bar where a library tells its length."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), _KnownBar())
    with Progress(*columns, console=CONSOLE, disable=not CONSOLE.is_terminal, transient=True) as lines:
        lines.add_task(text, total=None)
        _WAITING.append(lines)
        try:
            yield
        finally:
            _WAITING.remove(lines)


class OnceInTheLog(logging.Handler):
    """Hands a library's warnings to the root logger, whose handler writes the run's log file; each message once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a message on that has not been seen."""
        message = record.getMessage()
        if message not in self._seen:
            self._seen.add(message)
            logging.getLogger().handle(record)


def keep_going_without_log() -> None:
    """Have a log file that can't be written cost one line on the terminal; Python would print a traceback for each."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            vars(handler)["handleError"] = _LogProblem(handler)


class _LogProblem:
    """Tells once what is wrong with a log file."""

    def __init__(self, handler: logging.FileHandler):
        self._handler, self._has_told = handler, False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a mistake of ours in a message
            logging.Handler.handleError(self._handler, record)
        elif not self._has_told:
            self._has_told = True
            reason = error.strerror or str(error)
            print(f"{self._handler.baseFilename} can't be written ({reason}): the run goes on", file=sys.stderr)


def warn_in_the_log() -> None:
    """Send the libraries' and Python's own warnings to the run's log file, and not to the terminal."""
    logging.captureWarnings(True)
    handler = OnceInTheLog()
    for library in LIBRARIES:
        own = logging.getLogger(library)
        own.handlers, own.propagate = [handler], False
        own.setLevel(logging.WARNING)


def configure_logging(verbose: bool, quiet: bool = False) -> None:
    """Show statprune's own messages; the libraries' bars are silenced, their warnings go to the run's log file.

    Args:
        verbose: also show a line per block.
        quiet: show errors only, and no bars: another process shows the rest.
    """
    import datasets
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    modeling_gguf_pytorch_utils.tqdm = BarInLine  # of the GGUF reader
    logger = logging.getLogger("statprune")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    warn_in_the_log()
    keep_going_without_log()
    if quiet:
        CONSOLE.quiet = True
    rich = RichHandler(console=CONSOLE, show_path=False, show_level=False, show_time=False)
    logger.handlers = [rich if CONSOLE.is_terminal else logging.StreamHandler()]
