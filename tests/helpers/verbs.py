"""Carry out a verb of the command in this process."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from statprune.cli.main import main
from statprune.system.console import LIBRARIES

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def verb(*arguments: object) -> int:
    """Carry out ``statprune ARGUMENTS``; returns its exit status.

    What the command changes in its process is put back.
    """
    output, handlers = sys.stdout, {number: signal.getsignal(number) for number in HANDLED}
    try:
        with same_logs():
            return main([str(argument) for argument in arguments])
    finally:
        sys.stdout = output
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def same_logs() -> Iterator[None]:
    """Put back whose messages go where, which ``configure_logging`` decides for a whole process."""
    loggers = [logging.getLogger(name) for name in ("statprune", *LIBRARIES)]
    before = [(list(own.handlers), own.propagate, own.level) for own in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for own, (handlers, propagate, level) in zip(loggers, before, strict=True):
            own.handlers, own.propagate = handlers, propagate
            own.setLevel(level)
