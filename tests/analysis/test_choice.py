"""The choice between candidates: by whole runs where they tell, else by seconds, else by the layers' errors."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from statprune.analysis import choice
from statprune.analysis.choice import TriedCandidate, WholeRun, choice_between
from statprune.analysis.choice_text import print_choice, to_json
from statprune.analysis.compare import Measured
from statprune.analysis.uncertainty import Interval
from statprune.errors import StatpruneError

FIRST = TriedCandidate("first", ("method=wanda", "model.path=a b"), 0.1, 20.0, None)
SECOND = TriedCandidate("second", ("method=ria",), 0.2, 10.0, None)
OUT = TriedCandidate("third", ("method=sparsegpt",), None, None, "too slow for this budget")


def chosen(monkeypatch, interval, seconds=(20.0, 10.0)):
    runs = [
        WholeRun("first", Path("one"), seconds[0], {"text": Measured(30.0, 50.0)}),
        WholeRun("second", Path("two"), seconds[1], {"text": Measured(30.0, 45.0, interval)}),
    ]
    monkeypatch.setattr(choice, "_runs", lambda folders: runs)
    return choice_between([FIRST, SECOND, OUT], {"first": Path("one"), "second": Path("two")}, (1, 3), 12.0)


@pytest.mark.parametrize(
    ("interval", "label"), [(Interval(-0.1, -0.2, -0.05), "second"), (Interval(0.1, 0.05, 0.2), "first")]
)
def test_the_better_of_two_whole_runs_is_chosen_where_the_interval_tells(interval, label, monkeypatch):
    result = chosen(monkeypatch, interval)
    assert result.chosen == label and "differs by 0.1000" in result.reason


@pytest.mark.parametrize(("seconds", "label"), [((20.0, 10.0), "second"), ((10.0, 20.0), "first")])
def test_the_faster_one_is_chosen_where_the_interval_reaches_zero(seconds, label, monkeypatch):
    result = chosen(monkeypatch, Interval(-0.1, -0.2, 0.05), seconds)
    assert result.chosen == label and "does not tell it from" in result.reason


@pytest.mark.parametrize("seconds", [(20.0, None), (None, 10.0)])
def test_seconds_do_not_decide_where_one_run_used_the_others_calibration_pass(seconds, monkeypatch, capsys):
    result = chosen(monkeypatch, Interval(-0.1, -0.2, 0.05), seconds)
    assert result.chosen == "first" and "seconds can't be compared" in result.reason
    print_choice(result)
    assert "Use first:" in capsys.readouterr().out


def test_seconds_of_a_run_are_those_of_pruning_itself(monkeypatch):
    class Record:
        seconds: ClassVar = {"model": 9.0, "calibrate": 8.0, "observe": 1.0, "solve": 2.0, "propagate": 4.0}
        reused: ClassVar = []
        perplexity: ClassVar = {}

    monkeypatch.setattr(choice, "read_record", lambda folder: Record())
    assert choice._runs({"first": Path("one")})[0].seconds == 7.0
    Record.reused = ["the calibration pass"]
    assert choice._runs({"first": Path("one")})[0].seconds is None


def test_without_whole_runs_the_least_error_decides_and_the_reason_says_so():
    result = choice_between([FIRST, SECOND, OUT], {}, (1, 3), 12.0)
    assert result.chosen == "first" and "no two whole runs were compared" in result.reason


def test_nothing_to_choose_from_is_a_sentence():
    with pytest.raises(StatpruneError, match="no candidate can be used"):
        choice_between([OUT], {}, (1,), 1.0)


def test_the_text_shows_errors_runs_and_the_command(monkeypatch, capsys):
    print_choice(chosen(monkeypatch, Interval(0.1, 0.05, 0.2)))
    text = capsys.readouterr().out
    for part in ("0.1000", "third is out: too slow", "+0.1000 (+0.0500 to +0.2000)", "Use first:"):
        assert part in text
    assert "statprune method=wanda 'model.path=a b'" in text


def test_the_json_holds_the_same_facts(monkeypatch):
    facts = json.loads(to_json(chosen(monkeypatch, Interval(0.1, 0.05, 0.2))))
    assert facts["chosen"] == "first" and facts["candidates"][2]["error"] is None
    assert facts["runs"][1]["perplexity"]["text"]["interval"]["low"] == 0.05
