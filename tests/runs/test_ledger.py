"""How the jobs of a sweep ended, as the process that started them reads and prints it."""

import math
import re

import pytest

from statprune.runs.job import Outcome
from statprune.runs.ledger import LEDGER, JobNote, JobState, ledger, print_sweep, read_notes, write_note


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


def test_the_folder_of_notes_is_removed_in_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ledger() as folder:
        assert folder.is_dir() and folder.is_relative_to(tmp_path)
    assert not folder.exists()


def test_a_sweep_is_printed_with_what_its_numbers_are(measured, limited, capsys):
    notes = [Outcome("folder", JobState.FINISHED, record=record).note for record in (limited, measured[0])]
    assert print_sweep(notes)
    printed = capsys.readouterr().out
    error = 1 - limited.zero_shot.tasks["alone"].pruned["acc"]
    assert re.search(rf"{error:.4f}\s+\(zero-shot error\)", printed) and "(perplexity)" in printed


def test_a_sweep_counts_how_its_jobs_ended(capsys):
    print_sweep([note(), note(JobState.SKIPPED), note(), note(JobState.FAILED, ["no"])])
    assert "4 runs: 2 finished, 1 skipped, 1 failed" in " ".join(capsys.readouterr().out.split())


def test_failed_jobs_are_printed_with_their_reasons(capsys):
    assert not print_sweep([note(), note(JobState.FAILED, ["one", "two"], folder="bad")])
    assert capsys.readouterr().err == "statprune: bad failed: one\nstatprune: bad failed: two\n"
