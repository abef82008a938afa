"""A sweep that is stopped tells how many of its runs are finished."""

import re
import sys

import pytest

from statprune.cli import run
from statprune.cli.interrupts import Interrupts
from statprune.runs.ledger import LEDGER, JobNote, JobState, planned_jobs, write_note
from tests.helpers.command import statprune
from tests.helpers.runs import SMALL


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys):
    """What a sweep of six jobs prints that is interrupted in its third; nothing is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["statprune"])
    interrupts = Interrupts()
    monkeypatch.setattr(run, "interrupts", interrupts)

    def job():
        (line,) = (part for part in sys.argv if LEDGER in part)
        monkeypatch.setenv(LEDGER, line.partition("=")[2].strip("'"))
        assert planned_jobs() == 6
        for number, state in enumerate((JobState.FINISHED, JobState.FINISHED, JobState.RUNNING)):
            folder = tmp_path / "outputs" / "mine" / str(number)
            folder.mkdir(parents=True)
            write_note(number, JobNote(str(folder), state, [], None, "", [f"seed={number}"]))
        interrupts.arrived = True
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "job", job)
    line = run._CommandLine(["-m", "method=wanda,cvr", "seed=0,1,2"])
    with pytest.raises(KeyboardInterrupt):
        run._sweep(line)
    return capsys.readouterr().out


def test_a_sweep_that_is_interrupted_says_how_many_of_all_runs_are_finished(stopped):
    assert "interrupted: 2 of 6 runs finished, 1 interrupted" in stopped
    assert re.search(r"│ 2 +│ 2 +│ interrupted │", stopped)


@pytest.mark.usefixtures("stopped")
def test_the_table_of_a_sweep_that_is_interrupted_is_written(tmp_path):
    assert "interrupted: 2 of 6 runs finished" in (tmp_path / "outputs" / "mine" / "sweep.md").read_text()


def test_a_saved_model_whose_folder_has_an_equals_sign_is_pasted_and_evaluated_under_its_runs_name(
    tiny_folder, tmp_path
):
    common = (*SMALL, "tracking=disabled", "cache=null")
    saved = statprune(*common, f"model.path={tiny_folder}", "method.alpha=0.25", "save_model=true", cwd=tmp_path)
    assert saved.returncode == 0, saved.stderr
    (model,) = tmp_path.glob("outputs/smoke/*_s0_alpha=0.25_*/model")
    done = statprune(*common, f"model.path={model.relative_to(tmp_path)}", "method=dense", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    begin = model.parent.name.replace("=", "-")
    assert list(tmp_path.glob(f"outputs/smoke/{begin}_bundled_dense_dense_none_s0_*/result.json"))
