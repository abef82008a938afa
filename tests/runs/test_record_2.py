"""Records of schema 2, whose tokenizers were said to begin a text with BOS or not: today's count windows."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from statprune.runs.record import RunRecord

SCHEMA_2 = Path(__file__).parents[1] / "records" / "schema_2"


@pytest.fixture
def old() -> dict[str, Any]:
    """The record of a run whose tokenizer begins a text with BOS."""
    values: dict[str, Any] = json.loads((SCHEMA_2 / "with_bos" / "result.json").read_text())
    assert values["schema_version"] == 2
    return values


def test_the_first_evaluation_window_alone_began_with_bos(old):
    record = RunRecord.from_json(old)
    assert record.perplexity["bundled"].windows_with_bos == 1 and record.perplexity["bundled"].windows == 4


@pytest.mark.parametrize(("starts", "count"), [([31348, 94437, 801], 0), ([0, 5, 0], 2), ([[3, 0], [4, 1]], 1)])
def test_calibration_windows_began_with_bos_at_token_0(starts, count, old):
    old["calibration"]["starts"] = starts
    assert RunRecord.from_json(old).calibration.windows_with_bos == count


def test_every_request_began_with_bos(old):
    assert RunRecord.from_json(old).zero_shot.protocol.requests_with_bos == 20


def test_nothing_began_with_a_bos_that_was_not_there(old):
    old["perplexity"]["bundled"]["begins_with_bos"] = old["calibration"]["begins_with_bos"] = False
    old["zero_shot"]["protocol"]["begins_with_bos"] = False
    record = RunRecord.from_json(old)
    assert record.perplexity["bundled"].windows_with_bos == record.calibration.windows_with_bos == 0
    assert record.zero_shot.protocol.requests_with_bos is None  # those without a context may have


def test_how_a_plugins_source_cut_is_not_known(old):
    old["perplexity"]["bundled"]["source"] = "folder"
    assert RunRecord.from_json(old).perplexity["bundled"].windows_with_bos is None


def test_nothing_else_of_schema_2_is_changed(old):
    values = copy.deepcopy(old)
    today = json.loads(json.dumps(RunRecord.from_json(old).to_json()))
    assert today.pop("schema_version") == 3 and old == values
    for part in (values["perplexity"]["bundled"], values["calibration"], values["zero_shot"]["protocol"]):
        del part["begins_with_bos"]
    assert today["environment"].pop("has_local_changes") is None
    for part in (today["perplexity"]["bundled"], today["calibration"]):
        assert part.pop("skipped_rows") == 0 and part.pop("windows_with_bos") is not None
    assert today["memory"].pop("dense_states") is None
    for part in (*today["zero_shot"]["tasks"].values(), today["zero_shot"]["mean"]):
        assert part.pop("flips") is None
    del today["zero_shot"]["protocol"]["requests_with_bos"], values["schema_version"]
    assert {key: today[key] for key in values} == values
