"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere, always on standard error."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True)  # one for bars and lines, so that lines go above a bar


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, on a terminal; yields a function that takes the number done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, disable=not CONSOLE.is_terminal, transient=True) as bars:
        task = bars.add_task(name, total=total)
        yield lambda done: bars.update(task, completed=done)


def configure_logging(verbose: bool, quiet: bool = False) -> None:
    """Show statprune's own messages, per-block lines too if ``verbose``; silence the libraries' bars and warnings.

    Args:
        verbose: show per-block lines.
        quiet: show errors only, and no bars: another process shows the rest.
    """
    import datasets
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # the GGUF reader draws a bar that no setting reaches
    modeling_gguf_pytorch_utils.tqdm = functools.partial(modeling_gguf_pytorch_utils.tqdm, disable=True)
    logger = logging.getLogger("statprune")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it tells of blocks left on disk, which were meant to be
    if quiet:
        CONSOLE.quiet = True
    rich = RichHandler(console=CONSOLE, show_path=False, show_level=False, show_time=False)
    logger.handlers = [rich if CONSOLE.is_terminal else logging.StreamHandler()]
