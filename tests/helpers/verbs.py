"""Carry out a verb of the command in this process."""

import signal
import sys

from statprune.cli.main import main


def verb(*arguments: object) -> int:
    """Carry out ``statprune ARGUMENTS``; returns its exit status.

    What the command changes in its process is put back.
    """
    output, handler = sys.stdout, signal.getsignal(signal.SIGINT)
    try:
        return main([str(argument) for argument in arguments])
    finally:
        sys.stdout = output
        signal.signal(signal.SIGINT, handler)
