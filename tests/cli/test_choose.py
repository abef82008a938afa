"""``statprune choose``: candidates are tried, two are run, and one is named."""

import json

import pytest

from statprune.cli.choose import EXAMPLE, MINUTES, read_budget
from statprune.errors import ConfigError
from tests.helpers.verbs import verb

SMALL = ("calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4", "evaluation.seq_len=32")


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit) as ended:
        verb("choose", "--help")
    assert ended.value.code == 0 and EXAMPLE in capsys.readouterr().out


def test_the_budget_is_taken_out_of_the_overrides():
    assert read_budget(["a=1", "budget=2.5", "b=2"]) == (2.5, ["a=1", "b=2"])
    assert read_budget(["a=1"]) == (MINUTES, ["a=1"])


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "inf", "nan"])
def test_a_budget_that_is_no_number_of_minutes_is_a_sentence(value):
    with pytest.raises(ConfigError, match="no number of minutes"):
        read_budget([f"budget={value}"])


def test_a_wrong_override_is_a_sentence(capsys):
    assert verb("choose", "method=wanda") == 1
    error = capsys.readouterr().err
    assert "method=wanda decides what is to be chosen" in error and "Traceback" not in error


def test_without_runs_the_errors_choose(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert verb("choose", f"model.path={tiny_folder}", *SMALL, "--no-runs", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["chosen"] == facts["candidates"][0]["label"] and facts["runs"] == []


@pytest.mark.long
def test_the_best_two_are_run_whole_and_compared(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ("choose", f"model.path={tiny_folder}", *SMALL, "tracking=disabled", "budget=10")
    assert verb(*command, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [run["label"] for run in facts["runs"]] == [own["label"] for own in facts["candidates"][:2]]
    assert facts["runs"][1]["perplexity"]["bundled"]["interval"] is not None
    assert verb(*command) == 0
    assert f"Use {facts['chosen']}:" in capsys.readouterr().out
