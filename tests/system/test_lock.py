"""A folder has one writer, and the lock of a dead process is taken over."""

import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from statprune.system import lock
from statprune.system.lock import LOCK, LockedError, locked


def hold(folder: str, ready, leave) -> None:
    with locked(Path(folder)):
        ready.set()
        leave.wait(60)


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the folder's lock."""
    context = get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready, leave))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.fixture
def holder(tmp_path):
    """What this process writes into its lock, which it has dropped."""
    with locked(tmp_path):
        return json.loads((tmp_path / LOCK).read_text())


def test_another_process_that_lives_is_named(other_process, tmp_path):
    message = f"written by process {other_process.pid} on .*delete .*{LOCK}"
    with pytest.raises(LockedError, match=message), locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(other_process, tmp_path):
    other_process.kill()
    other_process.join()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_lock_names_its_process(holder):
    assert holder["pid"] == os.getpid()


def test_a_process_number_that_was_used_again_holds_nothing(holder, tmp_path):
    (tmp_path / LOCK).write_text(json.dumps(holder | {"started": "1"}))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == holder


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_lock_is_taken_over(content, tmp_path):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.fixture
def elsewhere(holder, tmp_path):
    """A lock that a process on another machine holds."""
    (tmp_path / LOCK).write_text(json.dumps(holder | {"host": "another machine"}))


@pytest.mark.usefixtures("elsewhere")
def test_a_process_on_another_machine_holds_its_lock(tmp_path):
    with pytest.raises(LockedError, match="on another machine"), locked(tmp_path):
        pass


@pytest.mark.usefixtures("elsewhere")
def test_a_process_on_another_machine_that_is_silent_counts_as_dead(tmp_path, holder):
    os.utime(tmp_path / LOCK, (0, time.time() - lock.SILENCE - 60))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == holder


@pytest.mark.usefixtures("elsewhere")
def test_a_job_that_slurm_started_again_waits_for_its_former_selfs_silence(tmp_path, holder, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(lock, "SILENCE", 1.0)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    os.utime(tmp_path / LOCK)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == holder


def test_a_lock_that_is_dropped_leaves_no_file(tmp_path):
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_of_many_processes_that_start_at_once_one_writes(tmp_path):
    program = f"""
import sys, time
from pathlib import Path
from statprune.system.lock import LockedError, locked
time.sleep(max(0, {time.time() + 4} - time.time()))
for _ in range(30):
    try:
        with locked(Path({str(tmp_path)!r})):
            mark = Path({str(tmp_path)!r}, "mark")
            mark.touch(exist_ok=False)
            time.sleep(0.002)
            mark.unlink()
    except LockedError:
        pass
"""
    workers = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0], [worker.stderr.read() for worker in workers]
