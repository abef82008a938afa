"""Numbers of a whole run, and its final numbers as W&B names them."""

from dataclasses import replace

import pytest

from statprune.pruning.report import experts_with_pooled_statistics, experts_without_tokens
from statprune.runs.finals import (
    block_means,
    correction_result,
    finals,
    mean,
)
from statprune.runs.pipeline import run
from statprune.runs.store import read_reports
from tests.helpers.command import tiny_job
from tests.helpers.runs import RECORDS, recorded


@pytest.fixture(scope="module", params=["plain", "mixture", "zero_shot"])
def older(request):
    """A record of an older version, and the reports beside it."""
    return recorded(request.param), read_reports(RECORDS / "schema_1" / request.param)


def test_what_corrections_did_is_counted_from_reports(older):
    record, reports = older
    assert correction_result(reports) == record.correction


def test_experts_are_counted_from_reports(older):
    record, reports = older
    counts = (experts_with_pooled_statistics(reports), experts_without_tokens(reports))
    coverage = record.coverage
    assert counts == (coverage.experts_with_pooled_statistics, coverage.experts_without_tokens)


def report(error, seconds):
    """Of a matrix that was pruned by half."""
    return replace(
        read_reports(RECORDS / "schema_1" / "plain")[0], sparsity=0.5, relative_output_error=error, seconds=seconds
    )


def test_means_of_a_block_are_over_the_matrices_that_have_the_number():
    means = block_means([report(0.1, 1.0), report(0.3, 2.0), report(None, 3.0)])
    assert means == pytest.approx({"sparsity": 0.5, "relative_output_error": 0.2, "seconds": 2.0})


def test_a_number_that_no_matrix_of_a_block_has_is_left_out():
    assert "relative_output_error" not in block_means([report(None, 1.0)])


def test_a_mean_of_nothing_is_none():
    assert mean([None, None]) is None and mean([]) is None and mean([None, 2.0]) == 2.0


def test_perplexities_have_the_names_of_their_datasets():
    record = recorded("plain")
    numbers = finals(record)
    assert numbers["perplexity/bundled"] == record.perplexity["bundled"].pruned
    assert numbers["perplexity/bundled_dense"] == record.perplexity["bundled"].dense


def test_sparsity_and_coverage_are_final_numbers():
    numbers = finals(recorded("mixture"))
    assert (numbers["sparsity/target"], numbers["sparsity/achieved"]) == (0.5, 0.49230769230769234)
    names = ("coverage/prunable", "coverage/pruned", "coverage/skipped")
    assert [numbers[name] for name in names] == [24576, 24576, 384]


def test_the_correction_is_among_the_final_numbers():
    numbers = finals(recorded("plain"))
    assert (numbers["correction/corrected"], numbers["correction/unchanged"]) == (15, 6)


def test_seconds_have_the_names_of_their_phases():
    record = recorded("plain")
    numbers = finals(record)
    assert {key: numbers[f"seconds/{key}"] for key in record.seconds} == record.seconds


def test_every_metric_of_every_task_is_a_final_number():
    record = recorded("zero_shot")
    numbers, task = finals(record), record.zero_shot.tasks["alone"]
    assert {metric: numbers[f"zero_shot/alone/{metric}"] for metric in task.pruned} == task.pruned
    assert {metric: numbers[f"zero_shot/alone/{metric}_dense"] for metric in task.dense} == task.dense


def test_the_mean_accuracy_and_the_limit_are_final_numbers():
    record = recorded("pending")
    numbers = finals(record)
    assert {key: numbers[f"zero_shot/mean/{key}"] for key in vars(record.zero_shot.mean)} == vars(record.zero_shot.mean)
    assert numbers["zero_shot/limit"] == 6


def test_the_peak_of_memory_is_the_gpus_where_there_is_one():
    record = recorded("plain")
    assert finals(record)["memory/peak_gib"] == record.memory.peak_host_bytes / 2**30
    on_gpu = replace(record, memory=replace(record.memory, peak_device_bytes=2**30))
    assert finals(on_gpu)["memory/peak_gib"] == 1.0


@pytest.fixture(scope="module")
def correction(tiny_folder, tmp_path_factory):
    config = tiny_job(tiny_folder, "method=wanda", "compensation=moments", "compensation.samples=64")
    return run(config, tmp_path_factory.mktemp("correction")).correction


def test_every_matrix_is_recorded_as_corrected_or_unchanged(correction):
    assert correction.corrected + correction.unchanged == 21


def test_the_recorded_output_error_does_not_rise(correction):
    assert correction.output_error_after <= correction.output_error_before
