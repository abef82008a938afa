"""Scores against the papers' formulas, written out in float64."""

import math

import pytest
import torch

from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.core.scores import (
    Activation,
    CvrOptions,
    NoOptions,
    RiaOptions,
    cvr,
    magnitude,
    ria,
    stade,
    stade_w,
    wanda,
)
from statprune.core.statistics import InputStatistics
from tests.helpers.matrices import random_matrix


def entries(weight):
    """Row, column and absolute value of each entry."""
    return [(i, j, abs(weight[i, j].item())) for i in range(weight.shape[0]) for j in range(weight.shape[1])]


def norms(inputs):
    return [math.sqrt(sum(value * value for value in inputs[:, j].tolist())) for j in range(inputs.shape[1])]


def population_variance(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def test_wanda_is_its_authors_formula():
    w, x, statistics = random_matrix()
    score = wanda(w, statistics, NoOptions())
    for i, j, absolute in entries(w):
        assert score[i, j].item() == pytest.approx(absolute * norms(x)[j])


def test_ria_is_its_authors_formula():
    w, x, statistics = random_matrix()
    score = ria(w, statistics, RiaOptions())
    for i, j, absolute in entries(w):
        relative = absolute / w[:, j].abs().sum().item() + absolute / w[i].abs().sum().item()
        assert score[i, j].item() == pytest.approx(relative * norms(x)[j] ** 0.5)


def test_cvr_is_the_papers_formula():
    w, x, statistics = random_matrix()
    score = cvr(w, statistics, CvrOptions())
    for i, j, absolute in entries(w):
        column, inputs = population_variance(w[:, j].tolist()), population_variance(x[:, j].tolist())
        assert score[i, j].item() == pytest.approx(absolute * inputs**0.25 * (column + 1e-8) ** (-0.25))


def test_stade_is_its_authors_formula():
    w, x, statistics = random_matrix()
    score = stade(w, statistics, NoOptions())
    for i, j, absolute in entries(w):
        assert score[i, j].item() == pytest.approx(absolute**2 * population_variance(x[:, j].tolist()))


@pytest.mark.parametrize(("follows_norm", "same"), [(True, wanda), (False, stade)])
def test_stade_w_is_wanda_after_a_norm(follows_norm, same):
    w, _, statistics = random_matrix()
    statistics.follows_norm = follows_norm
    assert torch.equal(stade_w(w, statistics, NoOptions()), same(w, statistics, NoOptions()))


def test_cvr_without_statistic_calibration_is_wanda():
    w, _, statistics = random_matrix()
    off = cvr(w, statistics, CvrOptions(statistic_calibration=False))
    assert torch.equal(off, wanda(w, statistics, NoOptions()))


def test_magnitude_is_the_absolute_value():
    w, _, statistics = random_matrix()
    assert magnitude(w, statistics).tolist() == [[abs(value) for value in row] for row in w.tolist()]


def test_ria_takes_another_power():
    w, _, statistics = random_matrix()
    squared, plain = (ria(w, statistics, RiaOptions(power)) for power in (2.0, 0.0))
    assert torch.allclose(squared, plain * statistics.norm**2)


def test_ria_of_empty_rows_and_columns_is_zero_there_and_its_formula_elsewhere():
    w, _, statistics = random_matrix(3, 4)
    w[1] = w[:, 2] = 0
    score = ria(w, statistics, RiaOptions())
    columns, rows = w.abs().sum(0).tolist(), w.abs().sum(1).tolist()
    for i, j, absolute in entries(w):
        wanted = (absolute / columns[j] + absolute / rows[i]) * statistics.norm[j].item() ** 0.5 if absolute else 0
        assert score[i, j].item() == pytest.approx(wanted, abs=0)


def test_ria_of_sums_below_its_clamp_divides_by_the_clamp():
    score = ria(torch.tensor([[1e-31, 3e-31]]).double(), InputStatistics.uninformed(2, 1, "cpu"), RiaOptions(0.0))
    assert score.tolist() == [[pytest.approx(0.2), pytest.approx(0.6)]]


def test_cvr_takes_wandas_norm_in_place_of_the_variance():
    w, x, statistics = random_matrix()
    score = cvr(w, statistics, CvrOptions(activation=Activation.norm))
    for i, j, absolute in entries(w):
        wanted = absolute * norms(x)[j] * (population_variance(w[:, j].tolist()) + 1e-8) ** (-0.25)
        assert score[i, j].item() == pytest.approx(wanted)


def test_cvr_takes_other_powers_and_another_epsilon():
    w, x, statistics = random_matrix()
    score = cvr(w, statistics, CvrOptions(alpha=1.5, epsilon=2.0, activation_power=0.5))
    for i, j, absolute in entries(w):
        column, inputs = population_variance(w[:, j].tolist()), population_variance(x[:, j].tolist())
        assert score[i, j].item() == pytest.approx(absolute * inputs**0.5 * (column + 2) ** (-0.75))


def test_a_constant_column_has_the_weight_of_cvrs_epsilon():
    w, _, statistics = random_matrix()
    w[:, 3] = 0.5
    score = cvr(w, statistics, CvrOptions())
    assert score[0, 3].item() == pytest.approx(0.5 * statistics.variance[3].item() ** 0.25 * 1e-8**-0.25)


@pytest.mark.parametrize("score", [wanda, ria, cvr])
def test_a_score_has_the_weights_precision(score):
    w, _, statistics = random_matrix()
    assert score(w.float(), statistics).dtype == torch.float32
    assert torch.allclose(score(w.float(), statistics), score(w, statistics).float(), rtol=1e-5)


def test_cvr_of_columns_far_from_zero_is_exact():
    """Their variance is lost where their mean is rounded to float32 while it is summed."""
    generator = torch.Generator().manual_seed(0)
    w = (1000 + torch.randn(5000, 2, generator=generator, dtype=torch.float64)).float()
    statistics = InputStatistics.uninformed(2, 1, "cpu")
    wanted = w.double().abs() * (w.double().var(0, correction=0) + 1e-8) ** -0.25
    assert torch.allclose(cvr(w, statistics, CvrOptions()).double(), wanted, rtol=1e-6)


@pytest.mark.parametrize("score", [ria, cvr])
def test_the_chunks_of_rows_change_no_score(score, monkeypatch):
    w, _, statistics = random_matrix()
    whole = score(w, statistics)
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1)
    assert torch.allclose(score(w, statistics), whole, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "name", "wrong", "least"),
    [
        (RiaOptions, "power", -0.5, 0.0),
        (CvrOptions, "alpha", -0.5, 0.0),
        (CvrOptions, "epsilon", 0.0, 1e-300),
        (CvrOptions, "activation_power", -0.5, 0.0),
    ],
)
def test_an_option_out_of_range_is_refused_and_its_bound_is_not(options, name, wrong, least):
    with pytest.raises(ValueError, match=f"method.{name}={wrong}"):
        options(**{name: wrong})
    assert getattr(options(**{name: least}), name) == least
