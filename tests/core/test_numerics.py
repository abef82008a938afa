"""Extreme weights and inputs: a defined result of every method and compensation, or an error that says why."""

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.finite import check_finite
from statprune.core.methods import get_method, method_names
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind

PATTERNS = [Unstructured(0.5), Unstructured(0.5, Group.matrix), Unstructured(0.0), Unstructured(0.999), NofM(2, 4)]
COMPENSATIONS = [None, Energy(), Energy(rows=False), Energy(columns=False), Energy(epsilon=0.0), Moments(groups=2)]
OUT, IN, TOKENS = 6, 8, 20


def observed(inputs, kind=StatisticsKind.GRAM):
    statistics = InputStatistics(inputs.shape[1], kind, sample_index=torch.arange(len(inputs)))
    statistics.update(inputs)
    return statistics


def random(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def matrix(change):
    """A weight and its inputs, of which one is unusual."""
    weight, inputs = random(OUT, IN, 0), random(TOKENS, IN, 1) + 0.3
    return change(weight, inputs)


def with_values(tensor, index, value):
    tensor[index] = value
    return tensor


CASES = {
    "a dead channel": lambda w, x: (w, with_values(x, (slice(None), 2), 0.0)),
    "dead channels only": lambda w, x: (w, x * 0),
    "a constant channel": lambda w, x: (w, with_values(x, (slice(None), 2), 1.5)),
    "constant channels only": lambda w, x: (w, torch.full_like(x, 1.5)),
    "constant weights": lambda w, x: (torch.full_like(w, 0.25), x),
    "weights that are all zero": lambda w, x: (w * 0, x),
    "a row of zeros": lambda w, x: (with_values(w, 1, 0.0), x),
    "a column of zeros": lambda w, x: (with_values(w, (slice(None), 1), 0.0), x),
    "scores that are all equal": lambda w, x: (w.sign(), x[:, :1].expand(-1, IN).contiguous()),
    "a Gram matrix of rank 1": lambda w, x: (w, x[:, :1] * x[:1]),
    "one token": lambda w, x: (w, x[:1]),
    "fewer tokens than channels": lambda w, x: (w, x[:3]),
    "one output": lambda w, x: (w[:1], x),
    "bfloat16": lambda w, x: (w.bfloat16().float(), x.bfloat16()),
    "float16": lambda w, x: (w.half().float(), x.half()),
    "tiny weights": lambda w, x: (w * 1e-12, x),
    "huge weights": lambda w, x: (w * 1e12, x),
    "tiny inputs": lambda w, x: (w, x * 1e-12),
    "huge inputs": lambda w, x: (w, x * 1e12),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", method_names())
def test_unusual_matrices_have_exactly_the_sparsity_asked_for(name, case):
    weight, inputs = matrix(CASES[case])
    statistics = observed(inputs)
    for pattern in PATTERNS:
        solution = get_method(name).solve(weight, statistics, pattern)
        plain = pattern.select(weight.abs())
        assert solution.weight.isfinite().all() and (solution.weight[~solution.keep] == 0).all(), pattern
        assert solution.keep.sum() == plain.sum(), pattern


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compensation", COMPENSATIONS[1:], ids=str)
def test_compensations_of_unusual_matrices_are_finite_and_keep_the_mask(compensation, case):
    weight, inputs = matrix(CASES[case])
    for pattern in PATTERNS:
        keep = pattern.select(weight.abs())
        result, _ = compensation.apply(weight, weight * keep, keep, observed(inputs))
        assert result.isfinite().all() and (result[~keep] == 0).all(), pattern


@pytest.mark.parametrize("name", method_names())
def test_one_input_channel_is_kept_where_a_row_has_no_half(name):
    solution = get_method(name).solve(random(OUT, 1, 0), observed(random(TOKENS, 1, 1)), Unstructured(0.5))
    assert solution.keep.all()


def test_one_input_channel_fits_no_n_of_m():
    assert "not divisible by M=4" in NofM(2, 4).problem(1)


@pytest.mark.parametrize(("keep", "of"), [(0, 4), (4, 4), (5, 4), (-1, 4), (0, 0)])
def test_n_of_m_that_removes_nothing_or_everything_is_refused(keep, of):
    with pytest.raises(ValueError, match="needs 0 < N < M"):
        NofM(keep, of)


BROKEN = {
    "NaN in a weight": (lambda w, x: (with_values(w, (1, 5), torch.nan), x), "of output 1 and input 5"),
    "Inf in a weight": (lambda w, x: (with_values(w, (1, 5), -torch.inf), x), "of output 1 and input 5"),
    "NaN in an input": (lambda w, x: (w, with_values(x, (3, 4), torch.nan)), "1 of 8 channels, first in channel 4"),
    "Inf in an input": (lambda w, x: (w, with_values(x, (3, 4), torch.inf)), "1 of 8 channels, first in channel 4"),
    "a late token that overflows": (lambda w, x: (w, (with_values(x, -1, 3e5)).half()), "8 of 8 channels"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("kind", StatisticsKind)
def test_what_is_not_finite_is_refused_with_its_place(kind, case):
    change, place = BROKEN[case]
    weight, inputs = matrix(change)
    with pytest.raises(ValueError, match=place):
        check_finite(weight, observed(inputs, kind))


@pytest.mark.parametrize("scale", [1.0, 1e38])
def test_what_is_finite_is_taken_though_its_sum_is_not(scale):
    check_finite(torch.full((4, 8), 3 * scale), observed(random(TOKENS, IN, 1)))


@pytest.mark.parametrize("name", ["wanda", "cvr", "sparsegpt"])
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)], ids=str)
def test_products_that_overflow_are_refused(name, pattern):
    """Infinite scores are all alike, and a mask of them would be one of positions."""
    weight, inputs = matrix(lambda w, x: (w * 1e30, x * 1e30))
    with pytest.raises(ValueError, match=r"not finite|squares"):
        get_method(name).solve(weight, observed(inputs), pattern)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "ria"])
@pytest.mark.parametrize("scale", [2.0**-80, 2.0**80])
def test_scores_without_squares_of_weights_select_alike_at_any_scale(name, scale):
    weight, inputs = matrix(lambda w, x: (w, x))
    wanted = get_method(name).solve(weight, observed(inputs), Unstructured(0.5)).keep
    keep = get_method(name).solve(weight * scale, observed(inputs), Unstructured(0.5)).keep
    assert torch.equal(keep, wanted)


@pytest.mark.parametrize("compensation", COMPENSATIONS[1:5], ids=str)
def test_an_energy_that_overflows_is_refused(compensation):
    weight, inputs = matrix(lambda w, x: (w * 1e30, x))
    keep = Unstructured(0.5).select(weight.abs())
    with pytest.raises(ValueError, match="energy overflows"):
        compensation.apply(weight, weight * keep, keep, observed(inputs))


def test_weights_whose_energy_is_below_epsilon_have_the_least_scale():
    weight, inputs = matrix(lambda w, x: (w * 1e-12, x))
    keep = Unstructured(0.5).select(weight.abs())
    _, report = Energy().apply(weight, weight * keep, keep, observed(inputs))
    assert report["row_scale_max"] == 0.5 and report["row_scale_clamped"] == 1


def test_a_correction_of_inputs_that_are_all_zero_leaves_the_weight_alone():
    weight, inputs = matrix(CASES["dead channels only"])
    keep = Unstructured(0.5).select(weight.abs())
    result, report = Moments().apply(weight, weight * keep, keep, observed(inputs))
    assert torch.equal(result, weight * keep) and report["corrected"] == 0 and report["row_scale_max"] == 1


@pytest.mark.parametrize(("weights", "inputs"), [(1e-30, 1.0), (1.0, 1e-30)])
def test_squares_that_vanish_are_refused_by_sparsegpt(weights, inputs):
    weight, inputs = matrix(lambda w, x: (w * weights, x * inputs))
    with pytest.raises(ValueError, match="squares"):
        get_method("sparsegpt").solve(weight, observed(inputs), Unstructured(0.5))


def test_cvr_takes_constant_channels_first():
    weight, inputs = matrix(CASES["a constant channel"])
    assert not get_method("cvr").solve(weight, observed(inputs), Unstructured(0.2)).keep[:, 2].any()


@pytest.mark.parametrize("name", ["wanda", "ria", "cvr", "sparsegpt"])
def test_dead_channels_are_taken_first(name):
    weight, inputs = matrix(CASES["a dead channel"])
    assert not get_method(name).solve(weight, observed(inputs), Unstructured(0.2)).keep[:, 2].any()
