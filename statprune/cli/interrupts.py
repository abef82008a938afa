"""What Ctrl-C does: the command ends without a traceback, wherever it is, and what was begun is cleaned up.

While there is nothing to clean up the process ends at once. During a job ``KeyboardInterrupt`` is raised. Some
libraries lose it, though: raised in a destructor, Python only prints it; raised in OmegaConf, it becomes another error.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # exit status as shells name it: 128 + the signal's number
SEND_AGAIN_AFTER = 0.05  # seconds


class Interrupts:
    """Ctrl-C of this process, once ``leave_at_once`` was called; before that, every method does nothing.

    Workers that a launcher started are so left to it.

    Attributes:
        arrived: Ctrl-C was pressed, and the process had something to clean up.
    """

    def __init__(self) -> None:
        self.arrived = False
        self._is_ours = False

    def leave_at_once(self) -> None:
        """From now on Ctrl-C ends the process: there is nothing to clean up."""
        self._is_ours = True
        signal.signal(signal.SIGINT, self._leave)

    def raise_error(self) -> None:
        """From now on Ctrl-C raises KeyboardInterrupt.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed while it waited.
        """
        if self._is_ours:
            sys.unraisablehook = self._raise_again
            signal.signal(signal.SIGINT, self._raise)
        self.raise_arrived()

    def wait(self) -> None:
        """From now on Ctrl-C waits until the next call of ``raise_error`` or ``raise_arrived``."""
        if self._is_ours:
            signal.signal(signal.SIGINT, self._note)

    def raise_arrived(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed, whatever became of the error that it raised."""
        if self.arrived:
            raise KeyboardInterrupt

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, b"statprune: interrupted\n")
        os._exit(INTERRUPTED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True

    def _raise(self, number: int, frame: FrameType | None) -> NoReturn:
        self.arrived = True
        raise KeyboardInterrupt

    def _raise_again(self, lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(SEND_AGAIN_AFTER, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            sys.__unraisablehook__(lost)


interrupts = Interrupts()
