"""Reports of pruned matrices, and the lines of ``blocks.jsonl`` that they are."""

import json
from pathlib import Path

import pytest

from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Unstructured
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import PruneSpec
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

SCHEMA_1 = sorted((Path(__file__).parents[1] / "records" / "schema_1").glob("*/blocks.jsonl"))
REPORT = MatrixReport(
    block=1,
    name="mlp.experts.down_proj[2]",
    expert="mlp.experts[2]",
    out_features=4,
    in_features=8,
    weights=32,
    target_sparsity=0.6,
    calibration_tokens=17,
    pooled_statistics=True,
    sparsity=0.59375,
    relative_output_error=None,
    seconds=0.25,
    diagnostics={"score_mean": 1.5, "damping": None},
)


def test_a_report_is_one_flat_mapping():
    assert REPORT.to_json() == {
        "block": 1,
        "layer": "mlp.experts.down_proj[2]",
        "expert": "mlp.experts[2]",
        "out_features": 4,
        "in_features": 8,
        "weights": 32,
        "target_sparsity": 0.6,
        "calibration_tokens": 17,
        "pooled_statistics": True,
        "sparsity": 0.59375,
        "relative_output_error": None,
        "seconds": 0.25,
        "score_mean": 1.5,
        "damping": None,
    }


def test_a_report_survives_a_round_trip_through_json():
    assert MatrixReport.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT


@pytest.mark.parametrize("compensation", [None, Moments(samples=64)])
def test_the_reports_of_a_pruned_model_survive_a_round_trip_through_json(compensation):
    spec = PruneSpec(get_method("sparsegpt"), Unstructured(0.5), compensation)
    reports = prune(tiny_llama(), random_windows(4, 16), spec).matrices
    assert len(reports) == 21
    for report in reports:
        assert MatrixReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_there_are_files_of_schema_1():
    assert len(SCHEMA_1) == 4


@pytest.mark.parametrize("path", SCHEMA_1, ids=lambda path: path.parent.name)
def test_every_line_of_schema_1_is_read_and_written_again(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines
    for line in lines:
        assert MatrixReport.from_json(line).to_json() == line


@pytest.mark.parametrize("key", ["block", "layer", "sparsity", "relative_output_error", "seconds"])
def test_a_line_that_lacks_a_field_is_refused(key):
    with pytest.raises(KeyError, match=key):
        MatrixReport.from_json({name: value for name, value in REPORT.to_json().items() if name != key})
