"""How the jobs of a sweep ended, as the process that started them reads it."""

import math
from dataclasses import replace

import pytest

from statprune.runs.ledger import (
    LEDGER,
    JobNote,
    JobState,
    ledger,
    planned_jobs,
    read_notes,
    why_untold,
    write_note,
    write_planned,
)
from tests.helpers.full_disks import failing_once


def note(state=JobState.FINISHED, reasons=(), metric=None, measured="perplexity", folder="folder"):
    return JobNote(folder, state, [*reasons], metric, measured)


@pytest.fixture
def notes_folder(tmp_path, monkeypatch):
    """Where jobs write their notes."""
    monkeypatch.setenv(LEDGER, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("metric", [None, 1.5, math.inf])
def test_a_note_is_read_as_it_was_written(metric, notes_folder):
    written = note(JobState.FAILED, ["why"], metric)
    write_note(0, written)
    assert read_notes(notes_folder) == [written]


def test_notes_are_read_in_the_order_of_their_jobs(notes_folder):
    for number in (10, 9, 0):
        write_note(number, note(folder=str(number)))
    assert [written.folder for written in read_notes(notes_folder)] == ["0", "9", "10"]


def test_a_note_replaces_the_one_before(notes_folder):
    write_note(0, note(JobState.RUNNING))
    write_note(0, note())
    assert read_notes(notes_folder) == [note()]


def test_a_job_that_began_and_said_no_more_has_died(notes_folder):
    write_note(0, note(JobState.RUNNING))
    (died,) = read_notes(notes_folder)
    assert died.state is JobState.FAILED and "its process ended before the run did" in died.reasons[0]


def test_a_note_that_nobody_can_read_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv(LEDGER, str(tmp_path / "gone"))
    write_note(0, note())
    assert not (tmp_path / "gone").exists()


def test_a_note_that_finds_no_room_is_told_elsewhere(notes_folder, tmp_path_factory, monkeypatch):
    """The last one of a job, whose first is in the folder."""
    write_note(0, note(JobState.RUNNING))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    failing_once(monkeypatch, "statprune.runs.ledger._write_note")
    write_note(0, note(JobState.FAILED, ["the disk is full"]))
    assert [*elsewhere.iterdir()] and read_notes(notes_folder) == [note(JobState.FAILED, ["the disk is full"])]


def test_a_sweep_without_notes_says_why(notes_folder, monkeypatch):
    assert "their folders and logs say more" in why_untold(notes_folder)
    failing_once(monkeypatch, "pathlib.Path.write_bytes")
    assert "can't be written to (No space left on device); make room there" in why_untold(notes_folder)


def test_the_folder_of_notes_is_removed_in_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ledger() as folder:
        assert folder.is_dir() and folder.is_relative_to(tmp_path)
    assert not folder.exists()


def test_a_job_that_was_running_when_the_sweep_was_stopped_was_interrupted(notes_folder):
    write_note(0, note())
    write_note(1, note(JobState.RUNNING))
    assert [written.state for written in read_notes(notes_folder, interrupted=True)] == [
        JobState.FINISHED,
        JobState.INTERRUPTED,
    ]


def test_a_note_has_the_jobs_overrides(notes_folder):
    written = replace(note(), overrides=["method=wanda", "sparsity='2_4'"])
    write_note(0, written)
    assert read_notes(notes_folder) == [written]


@pytest.mark.parametrize("jobs", [6, None])
def test_jobs_are_told_how_many_they_are(jobs, notes_folder):
    write_planned(notes_folder, jobs)
    assert planned_jobs() == jobs and read_notes(notes_folder) == []


def test_a_job_without_a_sweep_does_not_know_how_many_there_are(monkeypatch):
    monkeypatch.delenv(LEDGER, raising=False)
    assert planned_jobs() is None
