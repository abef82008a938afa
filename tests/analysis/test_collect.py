"""What is collected of records, and what is named instead."""

import json
import logging
import shutil
from dataclasses import replace

import numpy
import pytest

from statprune.analysis.collect import collect, collect_folders, documents, layers, rows_of, windows
from statprune.runs.pipeline import run
from statprune.runs.record import SCHEMA_VERSION
from statprune.runs.store import read_record
from tests.helpers.command import tiny_job
from tests.helpers.old_records import FINISHED, PENDING, copy_schema_1, schema_1_values
from tests.helpers.runs import record_text

JOBS = {
    "dense": ["method=dense"],
    "wanda-0": ["method=wanda", "sparsity='2_4'"],
    "wanda-1": ["method=wanda", "sparsity='2_4'", "seed=1"],
    "cvr": ["method=cvr"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_folder):
    """Four runs: dense, Wanda with two seeds, CVR with energy."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in JOBS.items():
        run(tiny_job(tiny_folder, "evaluation.seq_len=16", *changes), folder / name)
    return folder


@pytest.fixture(scope="module")
def frame(runs):
    """The rows of the four runs by the names of their folders."""
    collected = collect(runs).frame
    return collected.set_index(collected.folder.str.rpartition("/")[2])


def test_every_record_below_a_folder_has_a_row(runs):
    collected = collect(runs)
    assert collected.skipped == [] and set(collected.frame.folder) == {str(runs / name) for name in JOBS}


@pytest.mark.parametrize("name", JOBS)
def test_a_row_has_the_numbers_of_its_record(name, runs, frame):
    record, row = json.loads((runs / name / "result.json").read_text()), frame.loc[name]
    assert row.pruned == record["perplexity"]["bundled"]["pruned"]
    assert row.dense == record["perplexity"]["bundled"]["dense"]
    assert row["seconds.load"] == record["seconds"]["load"]
    assert row.protocol["seq_len"] == 16 and row.n == 4


def test_a_label_tells_the_method_and_its_compensation(frame):
    assert frame.label.to_dict() == {"dense": "dense", "wanda-0": "wanda", "wanda-1": "wanda", "cvr": "cvr + energy"}


def test_a_pattern_is_written_as_people_write_it(frame):
    assert frame.pattern.to_dict() == {"dense": "dense", "wanda-0": "2:4", "wanda-1": "2:4", "cvr": "0.5"}


def test_the_configuration_is_in_the_row_by_full_names(frame):
    assert frame.seed.to_dict() == {"cvr": 0, "dense": 0, "wanda-0": 0, "wanda-1": 1}
    assert list(frame.seed) == [0, 0, 0, 1]  # rows are sorted by folder
    assert frame.loc["cvr", "method.alpha"] == 0.5


def test_a_row_counts_the_matrices_that_were_pruned(runs, frame):
    assert frame.loc["cvr", "layers"] == len(layers(runs / "cvr")) == 21 and frame.loc["dense", "layers"] == 0


def test_a_run_that_measured_nothing_has_a_row_without_a_metric(runs):
    record = replace(read_record(runs / "cvr"), perplexity={})
    (row,) = rows_of(record, runs / "cvr")
    assert row["metric"] is None and row["protocol"]["torch"] == record.environment.packages["torch"]


def test_the_losses_of_the_windows_give_the_perplexity(runs, frame):
    assert numpy.exp(windows(runs / "cvr").pruned_loss.mean()) == pytest.approx(frame.loc["cvr"].pruned)


def test_the_rows_of_several_folders_stand_below_each_other(runs):
    together = collect_folders([runs / "cvr", runs / "wanda-1"])
    assert list(together.folder) == [str(runs / "cvr"), str(runs / "wanda-1")] and list(together.index) == [0, 1]


def damaged_text(record: dict, damage: str) -> str:
    """The text of a record that can't be used."""
    if damage == "cut off":
        return '{"config": '
    changes = {
        "of an unknown old version": {"schema_version": 0},
        "of a newer version": {"schema_version": SCHEMA_VERSION + 1},
        "pending": {"pending": {"evaluation": "zero_shot", "model": None}},
    }
    if damage in changes:
        return record_text(record | changes[damage])
    return json.dumps({key: record[key] for key in ("schema_version", "config", "config_hash", "perplexity")})


@pytest.mark.parametrize(
    "damage,reason",
    [
        ("cut off", "can't be read"),
        ("without most of its keys", "can't be read"),
        ("of an unknown old version", f"its schema is 0, and this statprune reads 1 to {SCHEMA_VERSION}"),
        (
            "of a newer version",
            f"its schema is {SCHEMA_VERSION + 1}, and this statprune reads 1 to {SCHEMA_VERSION}",
        ),
        ("pending", "lacks its zero-shot evaluation and is left out"),
    ],
)
def test_a_record_that_is_not_whole_is_named_and_left_out(damage, reason, runs, tmp_path, caplog):
    shutil.copytree(runs / "cvr", tmp_path / "whole")
    shutil.copytree(runs / "cvr", tmp_path / "other")
    path = tmp_path / "other" / "result.json"
    path.write_text(damaged_text(json.loads(path.read_text()), damage))
    with caplog.at_level(logging.WARNING):
        collected = collect(tmp_path)
    (sentence,) = collected.skipped
    assert str(path) in sentence and reason in sentence and sentence in caplog.text
    assert list(collected.frame.folder) == [str(tmp_path / "whole")]


def test_all_records_that_are_not_whole_are_named_in_the_order_of_their_folders(runs, tmp_path):
    record = json.loads((runs / "cvr" / "result.json").read_text())
    for damage in ("pending", "cut off", "of an unknown old version", "without most of its keys"):
        (tmp_path / damage).mkdir()
        (tmp_path / damage / "result.json").write_text(damaged_text(record, damage))
    collected = collect(tmp_path)
    assert collected.frame.empty and len(collected.skipped) == 4
    for folder, sentence in zip(sorted(tmp_path.iterdir()), collected.skipped, strict=True):
        assert f"{folder}/result.json" in sentence


def test_records_of_schema_1_have_rows_with_their_numbers(tmp_path):
    frame = collect(copy_schema_1(tmp_path / "old")).frame
    perplexities = frame[frame.metric == "perplexity"].set_index("folder")
    assert set(perplexities.index) == {str(tmp_path / "old" / name) for name in FINISHED}
    for name in FINISHED:
        values, row = schema_1_values(name), perplexities.loc[str(tmp_path / "old" / name)]
        measured = values["metrics"]["perplexity"]["bundled"]
        assert (row.dense, row.pruned) == (measured["dense"], measured["pruned"])
        assert row.config_hash == values["config_hash"] and row.achieved == values["sparsity"]["achieved"]
        assert row["seconds.solve"] == values["seconds"]["solve"]


def test_the_accuracy_of_a_record_of_schema_1_is_collected(tmp_path):
    folder = copy_schema_1(tmp_path / "old") / "zero_shot"
    frame = collect(folder).frame
    (mean,) = frame[frame["on"] == "mean"].itertuples()
    expected = schema_1_values("zero_shot")["metrics"]["zero_shot"]["mean"]
    assert (mean.dense, mean.pruned) == (expected["dense"], expected["pruned"])
    answers = documents(folder)
    own = answers[(answers.task == "alone") & (answers.metric == "acc")]
    assert own.pruned.mean() == pytest.approx(expected["pruned"])


def test_a_pending_record_of_schema_1_is_named_and_left_out(tmp_path):
    folder = copy_schema_1(tmp_path / "old")
    (sentence,) = collect(folder).skipped
    assert sentence.startswith(f"{folder / PENDING / 'result.json'} lacks its zero-shot evaluation and is left out")


@pytest.mark.parametrize(
    ("path", "paths", "name"),
    [
        ("/my/tiny.gguf", {}, "tiny"),
        ("/my/model", {}, "model"),
        ("outputs/mine/tiny_s0/model", {}, "tiny_s0"),
        ("model", {"model.path": "/runs/tiny_s0/model"}, "tiny_s0"),
        ("./link", {"model.path": "/runs/tiny_s0/model"}, "link"),
    ],
)
def test_a_saved_model_is_named_by_the_run_it_came_from(path, paths, name, runs):
    record = read_record(runs / "dense")
    config = record.config | {"model": record.config["model"] | {"path": path}}
    (row,) = rows_of(replace(record, config=config, paths=paths), runs / "dense")
    assert row["model"] == name
