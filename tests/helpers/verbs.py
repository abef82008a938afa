"""Carry out a verb of the command in this process."""

import signal
import sys

from statprune.cli.main import main

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def verb(*arguments: object) -> int:
    """Carry out ``statprune ARGUMENTS``; returns its exit status.

    What the command changes in its process is put back.
    """
    output, handlers = sys.stdout, {number: signal.getsignal(number) for number in HANDLED}
    try:
        return main([str(argument) for argument in arguments])
    finally:
        sys.stdout = output
        for number, handler in handlers.items():
            signal.signal(number, handler)
