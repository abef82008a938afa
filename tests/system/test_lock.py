"""A folder has one writer, and the lock of a dead process is taken over."""

import errno
import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from statprune.system import lock
from statprune.system.lock import LOCK, LockedError, LostLockError, check_ours, is_lost, locked


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


@pytest.fixture
def in_a_container(holder, tmp_path):
    """The lock of a process in another PID namespace of this very machine, whose number is nobody's here."""
    (tmp_path / LOCK).write_text(json.dumps(holder | {"namespace": "pid:[1]", "pid": 2**22 + 5}))


@pytest.mark.usefixtures("in_a_container")
def test_the_lock_of_a_process_in_another_namespace_is_not_taken_while_it_gives_signs_of_life(tmp_path):
    with pytest.raises(LockedError, match="counts as dead after 300 seconds"), locked(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


@pytest.mark.usefixtures("in_a_container")
def test_the_lock_of_a_process_in_another_namespace_that_is_silent_is_taken_over(tmp_path, holder):
    os.utime(tmp_path / LOCK, (0, time.time() - lock.SILENCE - 60))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == holder


def test_a_lock_of_an_older_version_is_judged_by_its_process(holder, tmp_path):
    del holder["namespace"]
    (tmp_path / LOCK).write_text(json.dumps(holder | {"started": "1"}))
    with locked(tmp_path) as own:
        assert own.still_ours()


UNUSABLE = {
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x80"),
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to("elsewhere"),
    "no regular file": os.mkfifo,
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_what_is_no_lock_ends_in_a_sentence_and_stays(reason, tmp_path):
    UNUSABLE[reason](tmp_path / LOCK)
    message = f"{LOCK} can't be used as a lock .*{reason}.*; remove it, or give another folder"
    with pytest.raises(LockedError, match=message), locked(tmp_path):
        pass
    assert os.path.lexists(tmp_path / LOCK) and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cant_be_written_ends_in_a_sentence(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.os, "open", refuse)
    with pytest.raises(LockedError, match=os.strerror(number)), locked(tmp_path):
        pass


@pytest.fixture(params=lock.NO_FLOCK)
def without_flock(request, monkeypatch):
    """A file system that has no flock."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_flock")
def test_a_folder_without_flock_is_locked_by_making_the_file(tmp_path, caplog):
    with locked(tmp_path) as own:
        assert own.still_ours() and "has no flock" in caplog.text
        with pytest.raises(LockedError, match="is being written by"), locked(tmp_path):
            pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.usefixtures("without_flock")
def test_a_dead_lock_in_a_folder_without_flock_is_not_taken_over(holder, tmp_path):
    (tmp_path / LOCK).write_text(json.dumps(holder | {"started": "1"}))
    with pytest.raises(LockedError, match="no flock to take it over safely; delete it"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    "change", [Path.unlink, lambda path: path.write_text("{}"), lambda path: path.write_bytes(b"\xff")]
)
def test_a_lock_that_another_process_has_taken_is_lost(change, tmp_path):
    with locked(tmp_path) as own:
        assert own.still_ours() and not is_lost(tmp_path)
        check_ours(tmp_path)
        change(tmp_path / LOCK)
        assert not own.still_ours() and is_lost(tmp_path)
        with pytest.raises(LostLockError, match="nothing more is written there"):
            check_ours(tmp_path)


def test_a_folder_that_was_never_locked_is_not_lost(tmp_path):
    check_ours(tmp_path)


def test_a_process_that_lost_its_lock_does_not_drop_the_others(holder, tmp_path):
    with locked(tmp_path):
        (tmp_path / LOCK).write_text(json.dumps(holder | {"pid": 1}))
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == 1


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
