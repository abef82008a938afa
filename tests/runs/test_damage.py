"""Truncated files and flipped bytes in whatever is read again: never another value without a word."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from statprune.analysis.collect import collect, documents, layers, windows
from statprune.errors import DamagedError, StatpruneError
from statprune.evaluation.accuracy import Answers, DocumentAnswer
from statprune.runs.dense_cache import LOSSES, DenseCache
from statprune.runs.ledger import LEDGER, JobNote, JobState, read_notes, write_note
from statprune.runs.pipeline import run
from statprune.runs.record import Pending, RunRecord
from statprune.runs.store import UNSAVED, damaged_model, read_record, write_documents, write_record
from statprune.runs.verdict import Complete, Run, Skip, verdict_on, with_whole_model
from tests.helpers.command import tiny_job
from tests.helpers.old_records import copy_schema_1
from tests.helpers.runs import recorded


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    """The content with one byte flipped at each of some places, and cut off at each of some lengths."""
    step = max(1, len(content) // count)
    for place in range(0, len(content), step):
        for bit in (1, 4, 0x80):
            yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        yield content[:place]


def survivors(path: Path, read: Callable[[], object], count: int = 40) -> list[bytes]:
    """The damaged contents of a file that were read as another value, and told nobody; the file is put back."""
    content, expected, found = path.read_bytes(), read(), []
    for other in damaged(content, count):
        path.write_bytes(other)
        try:
            value = read()
        except StatpruneError:
            continue
        if value != expected:
            found.append(other)
    path.write_bytes(content)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    run(tiny_job(tiny_folder), folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of its folder that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_damaged_record_is_never_another_record(copy):
    assert survivors(copy / "result.json", lambda: read_record(copy), 150) == []


@pytest.mark.parametrize(("name", "read"), [("blocks.jsonl", layers), ("windows.parquet", windows)])
def test_damaged_files_of_a_run_are_never_other_tables(name, read, copy):
    assert survivors(copy / name, lambda: read(copy).to_json(), 10) == []


def test_damaged_documents_are_never_other_answers(tmp_path):
    record = recorded("pending")
    own = [DocumentAnswer("alone", number, f"hash {number}", "acc", 1.0) for number in range(3)]
    write_documents(tmp_path, Answers(record.zero_shot.dense_metrics, own, 0), None)
    write_record(tmp_path, record)
    assert survivors(tmp_path / "documents.parquet", lambda: documents(tmp_path).to_json(), 10) == []


def test_a_damaged_perplexity_in_a_cache_is_never_another_one(tmp_path):
    cache = DenseCache(tmp_path, [])
    cache.write(LOSSES, "name", {"bundled": torch.tensor([1.5, 2.25], dtype=torch.float64)})

    def read() -> object:
        losses = cache.read(LOSSES, "name")
        if losses is None:
            raise DamagedError("it is measured again")
        return losses["bundled"].tolist()

    assert survivors(tmp_path / "dense" / "name.json", read) == []


def test_a_perplexity_of_another_name_in_a_cache_is_not_believed(tmp_path):
    cache = DenseCache(tmp_path, [])
    cache.write(LOSSES, "name", {"bundled": torch.tensor([1.5], dtype=torch.float64)})
    shutil.copy(tmp_path / "dense" / "name.json", tmp_path / "dense" / "other.json")
    assert cache.read(LOSSES, "other") is None


def test_a_damaged_note_of_a_job_is_a_failure_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv(LEDGER, str(tmp_path))
    write_note(3, JobNote("folder", JobState.FINISHED, [], 1.5, "perplexity"))

    def read() -> object:
        (note,) = read_notes(tmp_path)
        if note.state is JobState.FAILED and "can't be read" in note.reasons[0]:
            raise DamagedError("said")
        return note

    assert survivors(tmp_path / "3.json", read) == []


@pytest.mark.parametrize("name", ["blocks.jsonl", "windows.parquet"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"\xff" + path.read_bytes())])
def test_a_finished_run_with_damaged_files_is_run_again(name, change, copy, tiny_folder):
    change(copy / name)
    verdict = verdict_on(tiny_job(tiny_folder), copy)
    assert isinstance(verdict, Run) and f"is damaged ({name}" in verdict.because


def test_a_record_with_another_digit_is_run_again_by_its_own_command(copy, tiny_folder):
    text = (copy / "result.json").read_text()
    (copy / "result.json").write_text(text.replace('"achieved": 0.5', '"achieved": 0.6'))
    verdict = verdict_on(tiny_job(tiny_folder), copy)
    assert isinstance(verdict, Run) and "is damaged: it is run again" in verdict.because


def test_a_damaged_record_of_another_configuration_is_not_replaced(copy, tiny_folder):
    text = (copy / "result.json").read_text()
    (copy / "result.json").write_text(text.replace('"achieved": 0.5', '"achieved": 0.6'))
    with pytest.raises(DamagedError, match="rerun=true"):
        verdict_on(tiny_job(tiny_folder, "seed=3"), copy)


def test_a_record_whose_checksum_was_removed_is_damaged(copy):
    values = json.loads((copy / "result.json").read_text())
    del values["sha256"]
    (copy / "result.json").write_text(json.dumps(values))
    with pytest.raises(DamagedError, match="checksum is missing"):
        read_record(copy)


@pytest.mark.parametrize("name", ["result.json", "blocks.jsonl"])
def test_one_damaged_run_is_left_out_by_its_reason_and_the_others_are_collected(name, finished, tmp_path):
    for run_name in ("good", "bad"):
        shutil.copytree(finished, tmp_path / run_name)
    path = tmp_path / "bad" / name
    path.write_bytes(path.read_bytes().replace(b"5", b"\xff", 1))
    collected = collect(tmp_path)
    assert set(collected.frame.folder) == {str(tmp_path / "good")}
    assert len(collected.skipped) == 1 and str(tmp_path / "bad") in collected.skipped[0]


def test_a_damaged_run_of_an_older_version_is_left_out_by_its_reason(tmp_path):
    old = copy_schema_1(tmp_path / "old")
    (old / "plain" / "blocks.jsonl").write_bytes(b"\xff")
    values = json.loads((old / "mixture" / "result.json").read_text())
    values["config"]["methods"] = values["config"].pop("method")
    (old / "mixture" / "result.json").write_text(json.dumps(values))
    collected = collect(old)
    assert set(collected.frame.folder) == {str(old / "zero_shot")}
    (mixture, plain) = (next(each for each in collected.skipped if name in each) for name in ("mixture", "plain"))
    assert "is damaged" in mixture and "'method'" in mixture and "blocks.jsonl can't be read" in plain


@pytest.fixture
def pending(copy):
    """The folder of a run that waits for its evaluation with a pruned model."""
    (copy / UNSAVED).mkdir()
    (copy / UNSAVED / "config.json").write_text("{}")
    (copy / UNSAVED / "model.safetensors").write_bytes(bytes(100))
    values = json.loads((copy / "result.json").read_text()) | {"pending": {"evaluation": "zero_shot", "model": UNSAVED}}
    record = RunRecord.from_json(values)
    assert record.pending == Pending("zero_shot", UNSAVED)
    write_record(copy, record)
    return copy


def test_a_pending_run_with_a_whole_model_is_completed(pending, tiny_folder):
    verdict = verdict_on(tiny_job(tiny_folder), pending)
    assert isinstance(verdict, Complete) and with_whole_model(verdict, pending) == verdict


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(bytes(99) + b"\1")])
def test_a_pending_run_with_a_damaged_model_is_pruned_again(change, pending, tiny_folder):
    change(pending / UNSAVED / "model.safetensors")
    verdict = with_whole_model(verdict_on(tiny_job(tiny_folder), pending), pending)
    assert isinstance(verdict, Run) and "is damaged (.pruned/model.safetensors" in verdict.because


def test_a_pending_run_whose_reports_are_cut_off_is_pruned_again(pending, tiny_folder):
    content = (pending / "blocks.jsonl").read_bytes()
    (pending / "blocks.jsonl").write_bytes(content[: len(content) // 2])
    verdict = verdict_on(tiny_job(tiny_folder), pending)
    assert isinstance(verdict, Run) and "blocks.jsonl is not what the run wrote" in verdict.because


def test_a_finished_record_needs_no_kept_model(finished, tiny_folder):
    assert damaged_model(finished, read_record(finished)) == []
    assert isinstance(verdict_on(tiny_job(tiny_folder), finished), Skip)
