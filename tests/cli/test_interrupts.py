"""Ctrl-C: raised once there is something to clean up, never lost, and left alone in a launcher's workers."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from statprune.cli.interrupts import INTERRUPTED, Interrupts


@pytest.fixture
def ours():
    """Interrupts of this process, which are put back at the end."""
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    interrupts = Interrupts()
    interrupts.leave_at_once()
    yield interrupts
    signal.signal(signal.SIGINT, handler)
    sys.unraisablehook = hook


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_is_an_error_while_a_job_runs(ours):
    ours.raise_error()
    with pytest.raises(KeyboardInterrupt):
        press()
    assert ours.arrived


def test_an_interrupt_between_jobs_waits_for_the_next_one(ours):
    ours.wait()
    press()
    with pytest.raises(KeyboardInterrupt):
        ours.raise_error()


def test_an_interrupt_that_a_library_turned_into_another_error_is_raised_in_the_end(ours):
    ours.raise_error()
    with contextlib.suppress(KeyboardInterrupt):
        press()
    with pytest.raises(KeyboardInterrupt):
        ours.raise_arrived()


def test_an_interrupt_that_a_destructor_lost_comes_again(ours):
    class Losing:
        def __del__(self):
            press()
            time.sleep(0.01)

    ours.raise_error()
    with pytest.raises(KeyboardInterrupt):
        Losing()
        time.sleep(10)


def test_other_errors_in_destructors_are_shown(ours, capsys):
    class Failing:
        def __del__(self):
            raise OSError("no")

    ours.raise_error()
    Failing()
    assert "OSError: no" in capsys.readouterr().err


def test_an_interrupt_ends_the_process_at_once_where_nothing_is_to_be_cleaned_up():
    code = """
import os, signal
from statprune.cli.interrupts import Interrupts
Interrupts().leave_at_once()
os.kill(os.getpid(), signal.SIGINT)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "statprune: interrupted\n")


def test_a_process_that_the_command_did_not_start_keeps_its_handler():
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    interrupts.raise_error()
    interrupts.wait()
    assert signal.getsignal(signal.SIGINT) is before
