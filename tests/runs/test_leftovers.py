"""What a process leaves that is killed after its run was finished goes when the command is started again."""

import json
import os

import pytest
from omegaconf import OmegaConf

from statprune.runs import own_model
from statprune.runs.job import carry_out
from statprune.runs.ledger import SWEEPS, JobState, ledger
from statprune.runs.leftovers import CHECKPOINT, tidy
from statprune.runs.store import UNSAVED, finish_record
from statprune.runs.workbench import Workbench
from statprune.system.files import remove_abandoned, remove_dead_folders, replacing
from statprune.system.lock import LOCK, locked
from statprune.system.machine import tag
from tests.helpers.command import tiny_job
from tests.helpers.runs import recorded

DEAD = 2**22 + 5  # no process has such a number


@pytest.fixture
def killed(tmp_path):
    """The folder of a run that was killed between its record and its end, with a file of the user's own."""
    with locked(tmp_path):
        holder = json.loads((tmp_path / LOCK).read_text())
    own_model.begin(tmp_path, UNSAVED)
    for name in (UNSAVED, CHECKPOINT, ".converted-x", "model"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "model.safetensors").touch()
    for name in ("model/.fused-3.safetensors", "tmpab.hidden", f".now.{DEAD}", f".result.json.{tag()}-{DEAD}"):
        (tmp_path / name).touch()
    (tmp_path / LOCK).write_text(json.dumps(holder | {"pid": DEAD}))
    for name in ("run.log", "mine.txt"):
        (tmp_path / name).touch()
    finish_record(tmp_path, recorded("plain"), is_saved=False)
    return tmp_path


def test_what_is_left_of_a_finished_run_is_removed_and_nothing_else(killed):
    tidy(killed)
    assert {path.name for path in killed.iterdir()} == {"model", "mine.txt", "result.json", "run.log"}
    assert [path.name for path in (killed / "model").iterdir()] == ["model.safetensors"]


def test_nothing_is_removed_while_a_living_process_writes_there(killed):
    (killed / LOCK).unlink()
    with locked(killed):
        tidy(killed)
        assert (killed / UNSAVED).exists() and (killed / ".converted-x").exists()


def test_the_pruned_model_of_a_run_that_is_pending_stays(killed):
    finish_record(killed, recorded("pending"), is_saved=False)
    tidy(killed)
    assert (killed / UNSAVED).exists()


def test_a_folder_without_left_overs_is_not_written(tmp_path, monkeypatch):
    finish_record(tmp_path, recorded("plain"), is_saved=False)
    monkeypatch.setattr("statprune.runs.leftovers.locked", lambda *_, **__: pytest.fail("locked"))
    tidy(tmp_path)


def test_a_skipped_run_is_tidied(tmp_path, tiny_folder):
    composed = OmegaConf.create(tiny_job(tiny_folder).resolved())
    bench = Workbench(holds_model=False)
    assert carry_out(composed, tmp_path, bench, False).state is JobState.FINISHED
    own_model.begin(tmp_path, UNSAVED)
    assert carry_out(composed, tmp_path, bench, False).state is JobState.SKIPPED
    assert not (tmp_path / UNSAVED).exists()


def test_temporary_files_of_dead_processes_are_removed_and_others_stay(tmp_path):
    (tmp_path / f".a.json.{tag()}-{DEAD}").touch()
    stay = {f".a.json.{tag()}-{os.getpid()}", f".a.json.00000000-{DEAD}", ".mine", "a.json"}
    for name in stay:
        (tmp_path / name).touch()
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay


def test_a_temporary_file_tells_whose_it_is(tmp_path):
    with replacing(tmp_path / "a.json") as temporary:
        assert temporary.name == f".a.json.{tag()}-{os.getpid()}"
        temporary.touch()


def test_the_folder_of_a_killed_sweeps_notes_goes_with_the_next_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dead, elsewhere = (tmp_path / SWEEPS / f"20260101-000000-{own}-{DEAD}" for own in (tag(), "00000000"))
    for folder in (dead, elsewhere):
        folder.mkdir(parents=True)
    with ledger():
        assert elsewhere.exists() and not dead.exists()


def test_folders_of_dead_processes_are_removed_and_others_stay(tmp_path):
    stay = {f".statprune-{tag()}-{os.getpid()}-x", f".statprune-00000000-{DEAD}-x", ".statprune-mine", "mine"}
    for name in (*stay, f".statprune-{tag()}-{DEAD}-x"):
        (tmp_path / name).mkdir()
    remove_dead_folders(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay
