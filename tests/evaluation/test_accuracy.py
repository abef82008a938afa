"""Standard errors of differences, groups and means are those of the formulas."""

import math

import pandas
import pytest

from statprune.evaluation.accuracy import (
    Answers,
    DocumentAnswer,
    combined_stderr,
    finite_or_none,
    flipped_share,
    paired_stderr,
)
from statprune.runs.finals import finals
from statprune.runs.model_card import model_card

SINGLE = ("alone", "shown", "plain")


@pytest.fixture(scope="module")
def tasks_of_record(measured):
    return measured[0].zero_shot.tasks


@pytest.fixture(scope="module")
def mean(measured):
    return measured[0].zero_shot.mean


@pytest.fixture(scope="module")
def answers(measured):
    """By single task: a row per document, dense and pruned, of its accuracy."""
    table = pandas.read_parquet(measured[1] / "documents.parquet")
    return {name: table[(table.task == name) & (table.metric == "acc")] for name in SINGLE}


@pytest.fixture(scope="module")
def errors(answers):
    """By single task: the standard error of the mean difference over its documents."""
    result = {}
    for name, rows in answers.items():
        differences = (rows.pruned - rows.dense).to_numpy()
        mean = differences.mean()
        result[name] = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(rows) - 1) / len(rows))
    return result


@pytest.mark.parametrize("name", SINGLE)
def test_a_tasks_accuracy_is_the_mean_over_its_documents(name, tasks_of_record, answers):
    assert tasks_of_record[name].pruned["acc"] == answers[name].pruned.mean()


@pytest.mark.parametrize("name", SINGLE)
def test_a_tasks_difference_is_the_mean_over_its_documents(name, tasks_of_record, answers):
    rows = answers[name]
    assert tasks_of_record[name].difference == pytest.approx((rows.pruned - rows.dense).to_numpy().mean())


@pytest.mark.parametrize("name", SINGLE)
def test_flips_are_the_share_of_changed_answers_either_way(name, tasks_of_record, answers):
    rows = answers[name]
    flips = tasks_of_record[name].flips
    assert flips == pytest.approx((rows.pruned != rows.dense).mean())
    assert flips >= abs(tasks_of_record[name].difference) - 1e-9


def test_flips_of_a_group_are_weighted_as_the_group_is_and_the_mean_is_over_what_is_averaged(tasks_of_record, mean):
    group = (9 * tasks_of_record["shown"].flips + 30 * tasks_of_record["plain"].flips) / 39
    assert tasks_of_record["pair"].flips == pytest.approx(group)
    assert mean.flips == pytest.approx((group + tasks_of_record["alone"].flips) / 2)


def test_flips_are_shown(measured):
    own, told = measured[0].zero_shot, finals(measured[0])
    assert told["zero_shot/alone/flips"] == own.tasks["alone"].flips
    assert told["zero_shot/mean/flips"] == own.mean.flips
    card = model_card(measured[0])
    assert "| pruned | flips |" in card and f"| {own.mean.flips:.4f} |" in card


def single(*values):
    """Answers to one task."""
    return Answers({}, [DocumentAnswer("t", n, "h", "m", value) for n, value in enumerate(values)], 0)


def test_only_answers_that_are_right_or_wrong_flip():
    assert flipped_share("t", "m", single(0.0, 1.0, 1.0), single(1.0, 0.0, 1.0)) == pytest.approx(2 / 3)
    assert flipped_share("t", "m", single(0.5, 1.0), single(1.0, 0.0)) is None
    assert flipped_share("t", "m", single(None), single(1.0)) is None
    assert flipped_share("t", "m", single(), single()) is None


@pytest.mark.parametrize("name", SINGLE)
def test_the_error_of_a_tasks_difference_is_that_of_paired_documents(name, tasks_of_record, errors):
    assert errors[name] > 0
    assert tasks_of_record[name].difference_stderr == pytest.approx(errors[name])


def test_the_error_of_a_groups_difference_is_weighted_as_the_group_is(tasks_of_record, errors):
    expected = math.hypot(9 * errors["shown"], 30 * errors["plain"]) / 39
    assert tasks_of_record["pair"].difference_stderr == pytest.approx(expected)


def test_the_mean_accuracy_is_over_tasks_and_groups(tasks_of_record, mean):
    both = [tasks_of_record[name].pruned["acc"] for name in ("alone", "pair")]
    assert mean.pruned == pytest.approx(sum(both) / 2)


def test_the_error_of_the_mean_accuracy_is_that_of_independent_tasks(tasks_of_record, mean):
    both = [tasks_of_record[name].pruned["acc_stderr"] for name in ("alone", "pair")]
    assert mean.pruned_stderr == pytest.approx(math.hypot(*both) / 2)


def test_the_difference_of_means_is_pruned_minus_dense(mean):
    assert mean.difference
    assert mean.difference == pytest.approx(mean.pruned - mean.dense)


def test_the_error_of_the_difference_of_means_is_that_of_independent_tasks(tasks_of_record, mean, errors):
    expected = math.hypot(errors["alone"], tasks_of_record["pair"].difference_stderr) / 2
    assert mean.difference_stderr == pytest.approx(expected)


def answered(*values):
    """A model's answers to one task."""
    return Answers({}, [DocumentAnswer("task", number, "", "acc", value) for number, value in enumerate(values)], 0)


def test_pairing_documents_takes_no_account_of_their_order():
    dense, pruned = answered(0.0, 1.0, 1.0), answered(1.0, 1.0, 0.0)
    shuffled = Answers({}, pruned.documents[::-1], 0)
    assert paired_stderr("task", "acc", dense, shuffled) == paired_stderr("task", "acc", dense, pruned)


@pytest.mark.parametrize("values", [(1.0,), (1.0, None)])
def test_too_few_or_unmeasured_documents_have_no_paired_error(values):
    assert paired_stderr("task", "acc", answered(*values), answered(*values)) is None


def test_a_sum_with_an_unmeasured_number_has_no_error():
    assert combined_stderr([0.1, None], [0.5, 0.5]) is None


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (math.inf, None), (math.nan, None), ("1", None)])
def test_what_is_no_finite_number_is_none(value, expected):
    assert finite_or_none(value) == expected


def test_answers_survive_a_file():
    answers = Answers({"task": {"acc": 0.5}}, answered(1.0, None).documents, 3)
    assert Answers.from_json(answers.to_json()) == answers
