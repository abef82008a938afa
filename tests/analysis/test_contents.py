"""Runs that read different contents under one path."""

import dataclasses
import json

import pytest

from statprune.analysis.compare import compare
from statprune.analysis.compare_text import print_comparison, to_json
from statprune.analysis.contents import other_contents
from statprune.analysis.report import report
from statprune.runs.inputs import InputIdentity
from statprune.runs.record import RunRecord
from statprune.runs.store import read_record
from statprune.system.contents import FileIdentity
from tests.helpers.old_records import copy_schema_1


@pytest.fixture
def runs(tmp_path):
    """Runs of an older version, which do not say what they read."""
    return copy_schema_1(tmp_path / "runs")


def weights(sha256: str = "aa", size: int = 3, is_whole: bool = True) -> InputIdentity:
    return InputIdentity({"model.safetensors": FileIdentity(size, 0, sha256, is_whole)})


def sentences(runs, *inputs: dict[str, InputIdentity], **changes) -> list[str]:
    record = read_record(runs / "plain")
    assert isinstance(record, RunRecord)
    records = [dataclasses.replace(record, inputs=own, **changes) for own in inputs]
    return other_contents([f"run {number}" for number in range(1, len(records) + 1)], records)


def test_a_model_saved_anew_in_place_is_told(runs):
    inputs = [{"model.path": weights(sha256)} for sha256 in ("aa", "bb", "aa", "cc")]
    told = sentences(runs, *inputs, paths={"model.path": "/m"})
    assert told == ["model.path=/m held something else for run 2, run 4 than for run 1 (model.safetensors)"]


def test_equal_contents_are_no_word(runs):
    assert sentences(runs, {"model.path": weights()}, {"model.path": weights()}, {}) == []


def test_hashes_of_samples_and_of_all_bytes_are_not_compared(runs):
    assert sentences(runs, {"model.path": weights()}, {"model.path": weights("bb", is_whole=False)}) == []
    assert sentences(runs, {"model.path": weights()}, {"model.path": weights("bb", 4, is_whole=False)}) != []


def test_another_commit_of_the_hubs_model_is_told(runs):
    told = sentences(runs, *({"model.path": InputIdentity(commit=commit)} for commit in "ab"))
    assert len(told) == 1 and told[0].endswith("(another commit)")


def test_tasks_are_told_by_their_path_whatever_their_number(runs):
    record = read_record(runs / "plain")
    records = [
        dataclasses.replace(record, inputs={key: weights(sha256)}, paths={key: "/tasks"})
        for key, sha256 in (("evaluation.tasks.0", "aa"), ("evaluation.tasks.1", "bb"))
    ]
    told = other_contents(["a", "b"], records)
    assert told == ["evaluation.tasks=/tasks held something else for b than for a (model.safetensors)"]


def test_comparison_and_report_tell_it(runs, capsys):
    for name, sha256 in (("plain", "aa"), ("zero_shot", "bb")):
        path = runs / name / "result.json"
        own = dataclasses.asdict(weights(sha256))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": {"model.path": own}, "paths": {}}))
    for name in ("mixture", "pending"):
        (runs / name / "result.json").unlink()
    comparison = compare([runs / "plain", runs / "zero_shot"])
    assert len(comparison.contents) == 1 and json.loads(to_json(comparison))["contents"] == comparison.contents
    print_comparison(comparison)
    assert "held something else for run 2 than for run 1 (model.safetensors)." in capsys.readouterr().out
    report(runs, runs / "report.html")
    assert "held something else for zero_shot than for plain (model.safetensors)." in (runs / "report.html").read_text()
