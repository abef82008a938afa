"""The table at the end of a sweep."""

import csv
import re

import pytest

from statprune.runs.job import Outcome
from statprune.runs.ledger import JobNote, JobState
from statprune.runs.sweep_table import print_sweep, progress_of, sweep_table, tell, write_sweep

JOBS = [["method=cvr", "method.alpha=0.25"], ["method=cvr", "method.alpha=1"]]


def note(state=JobState.FINISHED, reasons=(), metric=None, folder="outputs/mine/run", overrides=(), measured=""):
    return JobNote(folder, state, [*reasons], metric, measured or "perplexity", [*overrides])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder that holds a sweep's runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def two():
    """Two jobs that differ in alpha; the second failed."""
    finished = note(metric=12.34567, folder="outputs/mine/a", overrides=JOBS[0])
    return [finished, note(JobState.FAILED, ["no|t", "so"], folder="outputs/mine/b", overrides=JOBS[1])]


def test_a_table_has_the_swept_keys_with_their_values(two):
    table = sweep_table(two, 2, interrupted=False)
    assert table.columns == ["run", "alpha", "perplexity", "state"]
    assert table.rows == [["a", "0.25", 12.34567, "finished"], ["b", "1", None, "failed"]]


def test_keys_that_end_alike_have_their_full_names():
    lengths = (["calibration.seq_len=1", "evaluation.seq_len=1"], ["calibration.seq_len=2", "evaluation.seq_len=2"])
    table = sweep_table([note(overrides=overrides) for overrides in lengths], 2, interrupted=False)
    assert table.columns == ["run", "calibration.seq_len", "evaluation.seq_len", "state"]


def test_an_error_and_a_perplexity_have_columns_of_their_own(measured, limited):
    notes = [Outcome("outputs/mine/a", JobState.FINISHED, record=record).note for record in (limited, measured[0])]
    table = sweep_table(notes, 2, interrupted=False)
    error = 1 - limited.zero_shot.tasks["alone"].pruned["acc"]
    assert table.columns == ["run", "perplexity", "zero-shot error", "state"]
    assert [row[1:3] for row in table.rows] == [[None, pytest.approx(error)], [notes[1].metric, None]]


@pytest.mark.parametrize(
    ("states", "planned", "interrupted", "title"),
    [
        ("fsfx", 4, False, "4 runs: 2 finished, 1 skipped, 1 failed"),
        ("s", 1, False, "1 run: 1 skipped"),
        ("ff", None, False, "2 runs: 2 finished"),
        ("fx", 6, False, "2 of 6 runs: 1 finished, 1 failed"),
        ("ffi", 6, True, "interrupted: 2 of 6 runs finished, 1 interrupted"),
        ("sf", 6, True, "interrupted: 1 of 6 runs finished, 1 skipped"),
        ("fi", None, True, "interrupted: 1 of 2 runs finished, 1 interrupted"),
        ("fffff", 3, True, "interrupted: 5 of 5 runs finished"),
    ],
)
def test_the_title_counts_how_jobs_ended(states, planned, interrupted, title):
    of_letter = {"f": "FINISHED", "s": "SKIPPED", "x": "FAILED", "i": "INTERRUPTED"}
    notes = [note(JobState[of_letter[letter]]) for letter in states]
    assert sweep_table(notes, planned, interrupted).title == title


def test_a_table_is_printed_with_rounded_numbers_and_the_reasons_of_failures(two, capsys):
    print_sweep(sweep_table(two, 2, interrupted=False))
    printed = capsys.readouterr()
    assert "2 runs: 1 finished, 1 failed" in printed.out
    assert re.search(r"│ a +│ 0\.25 +│ +12\.3457 │ finished │", printed.out)
    assert printed.err == "statprune: outputs/mine/b failed: no|t\nstatprune: outputs/mine/b failed: so\n"


def test_the_files_lie_beside_the_runs(two, here, capsys):
    assert not tell(two, 2, interrupted=False)
    assert capsys.readouterr().out.endswith("files: outputs/mine/sweep.csv, outputs/mine/sweep.md\n")
    assert {path.name for path in (here / "outputs" / "mine").iterdir()} == {"sweep.csv", "sweep.md"}


def test_the_csv_has_whole_numbers_and_empty_cells(two):
    path, _ = write_sweep(sweep_table(two, 2, interrupted=False))
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["run", "alpha", "perplexity", "state"],
            ["a", "0.25", "12.34567", "finished"],
            ["b", "1", "", "failed"],
        ]


def test_the_markdown_has_a_title_a_date_the_table_and_the_failures(two):
    _, path = write_sweep(sweep_table(two, 6, interrupted=True))
    title, _, summary, *table = path.read_text(encoding="utf-8").splitlines()
    assert title == "# outputs/mine"
    assert re.fullmatch(r"interrupted: 1 of 6 runs finished, 1 failed; \d{4}-\d\d-\d\dT\S+", summary)
    assert table == [
        "",
        "| run | alpha | perplexity | state |",
        "| --- | --- | ---: | --- |",
        "| a | 0.25 | 12.3457 | finished |",
        "| b | 1 |  | failed |",
        "",
        "- outputs/mine/b failed: no|t",
        "- outputs/mine/b failed: so",
    ]


def test_the_files_are_those_of_the_last_command(two):
    write_sweep(sweep_table(two, 2, interrupted=False))
    path, _ = write_sweep(sweep_table(two[:1], 1, interrupted=False))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_runs_of_several_folders_are_told_in_the_one_above(two, here):
    (here / "outputs" / "other").mkdir()
    table = sweep_table([two[0], note(folder=str(here / "outputs" / "other" / "b"))], 2, interrupted=False)
    assert table.folder == here / "outputs" and [row[0] for row in table.rows] == ["mine/a", "other/b"]


def test_a_folder_that_cant_be_written_is_a_sentence(two, here, capsys):
    (here / "outputs" / "mine").rmdir()
    assert tell(two[:1], 1, interrupted=False)
    assert "the sweep's table can't be written (No such file" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "planned", "text"), [(2, 6, "[3 of 6] "), (2, None, ""), (6, 6, "")])
def test_progress_counts_from_one(number, planned, text):
    assert progress_of(number, planned) == text
