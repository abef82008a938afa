"""What Ctrl-C and the signals that end a process do: the command ends without a traceback, and cleans up.

While there is nothing to clean up the process ends at once. During a job ``KeyboardInterrupt`` is raised; where the job
can stop after a step without losing it, a first signal asks for that, and a second one raises. Some libraries lose the
error, though: raised in a destructor, Python only prints it; raised in OmegaConf, it becomes another error.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from statprune.system import stop_request

INTERRUPTED = 130  # exit status as shells name it: 128 + the signal's number
SEND_AGAIN_AFTER = 0.05  # seconds
UNWINDING = 5.0  # seconds in which what was begun is put away, and another signal changes nothing
CLEANING = 10.0  # seconds after which another signal ends even that
# one press may arrive twice: timeout signals a process and its group, and torchrun passes on what the terminal sent
ECHO, ECHO_OF_TORCHRUN = 0.1, 2.0  # seconds


class Interrupts:
    """Signals of this process, once ``leave_at_once`` was called; before that, every method does nothing.

    Workers that a launcher started are so left to it.

    Attributes:
        arrived: a signal came, and the process had something to clean up.
        number: of the first signal.
    """

    def __init__(self) -> None:
        self.arrived = False
        self.number = int(signal.SIGINT)
        self._is_ours = False
        self._since = self._raised = -UNWINDING  # when the first signal came, and when it was last raised

    @property
    def status(self) -> int:
        """The exit status that says which signal came."""
        return 128 + self.number

    @property
    def name(self) -> str:
        """What the first signal is called."""
        return signal.Signals(self.number).name

    def leave_at_once(self) -> None:
        """From now on a signal ends the process: there is nothing to clean up."""
        self._is_ours = True
        _handle(self._leave)

    def raise_error(self) -> None:
        """From now on a signal raises KeyboardInterrupt, or asks a job to stop that can do so without losing a step.

        Raises:
            KeyboardInterrupt: a signal came while it waited.
        """
        if self._is_ours:
            sys.unraisablehook = self._raise_again
            _handle(self._raise)
        self.raise_arrived()

    def wait(self) -> None:
        """From now on a signal waits until the next call of ``raise_error`` or ``raise_arrived``."""
        if self._is_ours:
            _handle(self._note)

    def raise_arrived(self) -> None:
        """Raise KeyboardInterrupt if a signal came, whatever became of the error that it raised."""
        if self.arrived:
            raise KeyboardInterrupt(self.number)

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        _say(f"interrupted by {signal.Signals(number).name}")
        os._exit(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.arrived:
            self.arrived, self.number, self._since = True, number, time.monotonic()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.arrived
        self._note(number, frame)
        now = time.monotonic()
        if is_first and stop_request.is_listened_to():
            stop_request.request(number)
            _say(f"interrupted by {self.name}: finishing the block, send it again to stop at once")
            return
        if stop_request.cleans_up():
            if now - self._since > CLEANING:
                self._leave(number, frame)
            return
        echo = ECHO_OF_TORCHRUN if "WORLD_SIZE" in os.environ else ECHO
        is_echo = stop_request.requested() is not None and now - self._since < echo
        if not is_echo and now - self._raised >= UNWINDING:
            self._raised = now
            raise KeyboardInterrupt(self.number)

    def _raise_again(self, lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is KeyboardInterrupt:
            self._raised = -UNWINDING
            threading.Timer(SEND_AGAIN_AFTER, os.kill, (os.getpid(), self.number)).start()
        else:
            sys.__unraisablehook__(lost)


def _handle(handler: "signal._HANDLER") -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup's: the process was told to outlive its terminal
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # all of torchrun's processes get the signal
        os.write(2, f"statprune: {text}\n".encode())  # what a signal handler may call


interrupts = Interrupts()
