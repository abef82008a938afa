"""The files of a run's folder."""

import json
import math
from dataclasses import replace

import pytest

from statprune.errors import StatpruneError
from statprune.evaluation.accuracy import Answers, DocumentAnswer
from statprune.runs import own_model
from statprune.runs.store import (
    UNSAVED,
    can_resume,
    discard_unsaved,
    finish_record,
    read_dense_answers,
    read_record,
    read_reports,
    remove_leftovers,
    write_documents,
)
from tests.helpers.runs import RECORDS, recorded


def with_infinite_perplexity(record):
    perplexity = replace(record.perplexity["bundled"], pruned=math.inf)
    return replace(record, perplexity={"bundled": perplexity})


def test_a_perplexity_that_is_not_finite_is_null_in_the_record(tmp_path):
    finish_record(tmp_path, with_infinite_perplexity(recorded("plain")), is_saved=False)
    written = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert written["perplexity"]["bundled"]["pruned"] is None
    assert read_record(tmp_path).perplexity["bundled"].pruned is None


def test_the_card_of_a_saved_model_is_written_with_its_record(tmp_path):
    (tmp_path / "model").mkdir()
    finish_record(tmp_path, with_infinite_perplexity(recorded("plain")), is_saved=True)
    assert "not finite |" in (tmp_path / "model" / "README.md").read_text()


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}'])
def test_a_damaged_record_is_a_sentence_with_a_way_out(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(StatpruneError, match=r"result\.json can't be read \(.*\); delete it, or give rerun=true"):
        read_record(tmp_path)


@pytest.fixture
def folder_of_a_killed_run(tmp_path):
    for name in (".result.json.12", ".windows.parquet.7", "tmpab.hidden"):
        (tmp_path / name).touch()
    (tmp_path / ".converted-x" / "inner").mkdir(parents=True)
    for name in ("result.json", ".other.json", "mine.hidden", "windows.parquet"):
        (tmp_path / name).touch()
    return tmp_path


def test_what_a_killed_run_left_is_removed_and_nothing_else(folder_of_a_killed_run):
    remove_leftovers(folder_of_a_killed_run)
    names = {path.name for path in folder_of_a_killed_run.iterdir()}
    assert names == {"result.json", ".other.json", "mine.hidden", "windows.parquet"}


def test_reports_of_an_older_run_are_read():
    reports = read_reports(RECORDS / "schema_1" / "mixture")
    lines = [json.loads(line) for line in (RECORDS / "schema_1" / "mixture" / "blocks.jsonl").open()]
    assert [report.to_json() for report in reports] == lines
    assert reports[0].name == lines[0]["layer"] == "self_attn.q_proj"


def test_dense_answers_are_read_from_documents_and_record(tmp_path):
    result = recorded("pending").zero_shot
    documents = [
        DocumentAnswer("alone", number, f"hash {number}", "acc", value) for number, value in enumerate((1.0, None))
    ]
    dense = Answers(result.dense_metrics, documents, result.protocol.truncated_requests)
    write_documents(tmp_path, dense, None)
    assert read_dense_answers(tmp_path, result) == dense


@pytest.fixture
def unsaved(tmp_path):
    """A folder with a pruned model that is not to be saved."""
    (tmp_path / UNSAVED).mkdir()
    (tmp_path / UNSAVED / "config.json").touch()
    own_model.complete(tmp_path, UNSAVED, {})
    return tmp_path


def test_a_pending_run_can_resume_while_its_pruned_model_is_there(unsaved):
    assert can_resume(recorded("pending"), unsaved)
    (unsaved / UNSAVED / "config.json").unlink()
    assert not can_resume(recorded("pending"), unsaved)


def test_a_finished_run_can_not_resume(unsaved):
    assert not can_resume(recorded("zero_shot"), unsaved) and not can_resume(None, unsaved)


def test_the_pruned_model_of_a_pending_run_stays(unsaved):
    finish_record(unsaved, recorded("pending"), is_saved=False)
    discard_unsaved(unsaved)
    assert (unsaved / UNSAVED).exists()


def test_the_pruned_model_of_a_finished_run_is_discarded(unsaved):
    finish_record(unsaved, recorded("zero_shot"), is_saved=False)
    discard_unsaved(unsaved)
    assert not (unsaved / UNSAVED).exists()
