"""Scores in float32, to the bit: which sums are float64, and where they are rounded to the weight's precision."""

import pytest
import torch

from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.core.scores import Activation, CvrOptions, NoOptions, RiaOptions, _column_variance, cvr, ria, wanda
from statprune.core.statistics import InputStatistics


@pytest.fixture
def matrix():
    """A float32 weight with column means far from zero, and statistics of its inputs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 40, generator=generator) + torch.linspace(-3, 3, 40)
    statistics = InputStatistics(40)
    statistics.update(torch.randn(70, 40, generator=generator) + 0.3)
    return weight, statistics


def column_variance(weight, chunks=1):
    """Means and sums in float64, deviations and their squares in float32."""
    deviations = weight - weight.double().mean(0).float()
    squares = deviations * deviations
    return sum(part.double().sum(0) for part in squares.chunk(chunks)) / len(weight)


def test_wanda_rounds_the_norms(matrix):
    weight, statistics = matrix
    assert torch.equal(wanda(weight, statistics, NoOptions()), weight.abs() * statistics.norm.float())


def test_ria_rounds_the_powers_of_the_norms(matrix):
    weight, statistics = matrix
    absolute = weight.abs()
    relative = absolute / absolute.sum(0) + absolute / absolute.sum(1, keepdim=True)
    assert torch.equal(ria(weight, statistics, RiaOptions()), relative * statistics.norm.sqrt().float())


def test_the_variance_of_columns_is_of_rounded_means_and_squares(matrix):
    weight, _ = matrix
    assert torch.equal(_column_variance(weight), column_variance(weight))


@pytest.mark.parametrize("activation", Activation)
def test_cvr_rounds_the_variances_before_their_powers(matrix, activation):
    weight, statistics = matrix
    inputs = statistics.norm.float() if activation is Activation.norm else statistics.variance.float().pow(0.25)
    wanted = weight.abs() * (inputs * (column_variance(weight).float() + 1e-8).pow(-0.25))
    assert torch.equal(cvr(weight, statistics, CvrOptions(activation=activation)), wanted)


def test_cvr_adds_the_chunks_of_its_variance_in_float64(matrix, monkeypatch):
    weight, statistics = matrix
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 40 * 3)
    variance = column_variance(weight, chunks=100).float()
    wanted = weight.abs() * (statistics.variance.float().pow(0.25) * (variance + 1e-8).pow(-0.25))
    assert torch.equal(cvr(weight, statistics, CvrOptions()), wanted)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"statistic_calibration": False, "alpha": 0.7}, "alpha=0.7 has no effect with method.statistic_calibration"),
        ({"statistic_calibration": False, "epsilon": 0.1}, "epsilon=0.1 has no effect with method.statistic_calibr"),
        ({"statistic_calibration": False, "activation_power": 0.5}, "activation_power=0.5 has no effect with method."),
        ({"statistic_calibration": False, "activation": Activation.norm}, "activation=norm has no effect with method."),
        ({"activation": Activation.norm, "activation_power": 0.5}, "activation_power=0.5 has no effect with method."),
    ],
)
def test_an_option_that_another_switches_off_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CvrOptions(**options)
