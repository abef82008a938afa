"""Scores against the papers' formulas, written out in float64."""

import math

import pytest
import torch

from statprune.core.scores import CvrOptions, NoOptions, RiaOptions, cvr, ria, wanda
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


def test_cvr_without_statistic_calibration_is_wanda():
    w, _, statistics = random_matrix()
    off = cvr(w, statistics, CvrOptions(statistic_calibration=False))
    assert torch.equal(off, wanda(w, statistics, NoOptions()))
