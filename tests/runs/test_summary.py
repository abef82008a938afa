"""The tables at the end of a run."""

import math
import re
from dataclasses import replace

import pytest

from statprune.runs.summary import accuracy_line, print_summary
from tests.helpers.runs import recorded


def printed(record, folder, capsys):
    """The tables, with the room between words evened out."""
    print_summary(record, folder)
    return " ".join(capsys.readouterr().out.split())


def test_the_mean_accuracy_is_shown_with_its_errors(measured, capsys):
    record, folder = measured
    mean = record.zero_shot.mean
    row = rf"mean of 2 .* {mean.dense:.4f} ± .* {mean.pruned:.4f} ± .* {mean.difference:.4f} ± "
    print_summary(record, folder)
    assert re.search(row, capsys.readouterr().out)


def test_accuracies_over_all_documents_have_no_note(measured, capsys):
    assert "first" not in printed(*measured, capsys)


def test_accuracies_over_the_first_documents_have_a_note(limited, tmp_path, capsys):
    assert "only the first 5 documents of each task" in printed(limited, tmp_path, capsys)


def test_a_limited_task_counts_the_documents_that_were_asked(limited):
    task = limited.zero_shot.tasks["alone"]
    assert (task.documents, task.documents_in_all) == (5, 23)


@pytest.mark.parametrize("value", [None, math.inf])
def test_a_perplexity_that_is_not_finite_is_shown_in_words(value, tmp_path, capsys):
    record = recorded("plain")
    record = replace(record, perplexity={"bundled": replace(record.perplexity["bundled"], pruned=value)})
    assert printed(record, tmp_path, capsys).count("not finite") == 1


def test_experts_with_pooled_statistics_are_counted(tmp_path, capsys):
    assert "experts with pooled statistics │ 7 " in printed(recorded("mixture"), tmp_path, capsys)


def test_what_is_skipped_has_its_reason(tmp_path, capsys):
    assert "│ mlp.gate │ 0 │ 0 │ 384 │ router │" in printed(recorded("mixture"), tmp_path, capsys)


def test_what_the_correction_did_is_counted(tmp_path, capsys):
    text = printed(recorded("plain"), tmp_path, capsys)
    assert "layers corrected (left as they were) │ 15 (6) " in text
    assert "mean relative output error before, after │ 0.2566, 0.2448 " in text


def without_mean(record):
    """The record where the standing metric of its task is not finite."""
    mean = type(record.zero_shot.mean)(*[None] * 6)
    return replace(record, zero_shot=replace(record.zero_shot, mean=mean))


def test_tasks_without_a_mean_are_shown_all_the_same(tmp_path, capsys):
    text = printed(without_mean(recorded("zero_shot")), tmp_path, capsys)
    assert "alone" in text and "mean of" not in text


def test_metrics_that_are_not_finite_are_shown_as_none(tmp_path, capsys):
    record = recorded("zero_shot")
    task = replace(record.zero_shot.tasks["alone"], pruned={"acc": None}, difference=None, difference_stderr=None)
    record = without_mean(replace(record, zero_shot=replace(record.zero_shot, tasks={"alone": task})))
    assert "0.2500 ± 0.1306 │ none │ none │" in printed(record, tmp_path, capsys)


def test_a_line_of_a_sweep_has_the_mean_accuracy():
    assert accuracy_line(recorded("zero_shot").zero_shot) == "zero-shot accuracy 0.2500 dense, 0.1667 pruned"


def test_a_line_of_a_sweep_says_where_there_is_no_mean_accuracy():
    assert accuracy_line(without_mean(recorded("zero_shot")).zero_shot) == ("1 zero-shot tasks without a mean accuracy")


def test_a_line_of_a_sweep_tells_of_a_limit(limited):
    assert accuracy_line(limited.zero_shot).endswith("(first 5 documents of each task)")
