"""Ctrl-C: raised once there is something to clean up, never lost, and left alone in a launcher's workers."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from statprune.cli import interrupts
from statprune.cli.interrupts import INTERRUPTED, Interrupts
from statprune.system import stop_request

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def ours(monkeypatch):
    """Interrupts of this process, which are put back at the end."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(stop_request, "_signal", None)  # and afterwards as it was
    handlers, hook = {number: signal.getsignal(number) for number in HANDLED}, sys.unraisablehook
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    own = Interrupts()
    own.leave_at_once()
    yield own
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


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
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "statprune: interrupted by SIGINT\n")


def test_a_process_that_the_command_did_not_start_keeps_its_handler():
    before = signal.getsignal(signal.SIGINT)
    other = Interrupts()
    other.raise_error()
    other.wait()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", HANDLED)
def test_every_signal_that_ends_a_process_is_an_error_with_its_own_status(number, ours):
    ours.raise_error()
    with pytest.raises(KeyboardInterrupt) as caught:
        press(number)
    assert caught.value.args == (number,) and ours.status == 128 + number


def test_a_first_signal_waits_for_whoever_listens_and_says_so(ours, capfd):
    ours.raise_error()
    with stop_request.listening():
        press(signal.SIGTERM)
    assert stop_request.requested() == signal.SIGTERM and ours.arrived
    line = "statprune: interrupted by SIGTERM: finishing the block, send it again to stop at once"
    assert capfd.readouterr().err == line + "\n"


def test_a_second_signal_stops_at_once_with_the_status_of_the_first(ours, monkeypatch):
    monkeypatch.setattr(interrupts, "ECHO", 0.0)
    ours.raise_error()
    with stop_request.listening():
        press(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            press(signal.SIGINT)
    assert ours.status == 143


def test_a_signal_that_arrives_twice_is_one(ours, monkeypatch):
    monkeypatch.setattr(interrupts, "ECHO", 60.0)
    ours.raise_error()
    with stop_request.listening():
        press(signal.SIGTERM)
        press(signal.SIGTERM)
    assert stop_request.requested() == signal.SIGTERM


def test_what_torchrun_passes_on_after_the_terminals_own_signal_is_no_second_one(ours, monkeypatch):
    monkeypatch.setattr(interrupts, "ECHO", 0.0)
    monkeypatch.setattr(interrupts, "ECHO_OF_TORCHRUN", 60.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    ours.raise_error()
    with stop_request.listening():
        press()
        press(signal.SIGTERM)
    assert stop_request.requested() == signal.SIGINT


def test_a_second_signal_does_not_cut_off_what_the_first_began_to_put_away(ours):
    ours.raise_error()
    is_put_away = False
    with pytest.raises(KeyboardInterrupt):
        try:
            press()
        finally:
            press()
            with stop_request.cleaning_up():
                press()
                is_put_away = True
    assert is_put_away


def test_a_hangup_that_is_ignored_stays_ignored():
    code = """
import os, signal
from statprune.cli.interrupts import Interrupts
signal.signal(signal.SIGHUP, signal.SIG_IGN)
own = Interrupts()
own.leave_at_once()
own.raise_error()
os.kill(os.getpid(), signal.SIGHUP)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "still here\n")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_interrupted_command_ends_without_taking_its_memory_apart(rank):
    program = """
import atexit, os, signal, sys, threading, time
from statprune.cli import main as command
from statprune.cli.interrupts import interrupts

class Slow:
    def __del__(self):
        print("taken apart")

kept = Slow()

def interrupted(arguments):
    interrupts.raise_error()
    os.kill(os.getpid(), signal.SIGTERM)

atexit.register(print, "cleaned up")
threading.Thread(target=lambda: (time.sleep(0.1), print("waited for")), daemon=False).start()
sys.modules["statprune.cli.main"]._dispatch = interrupted
sys.exit(command())
"""
    environment = os.environ | {"RANK": rank}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 143 and done.stdout.split("\n") == ["waited for", "cleaned up", ""]
    said = "statprune: interrupted by SIGTERM; start the same command again to go on\n"
    assert done.stderr == (said if rank == "0" else "")
