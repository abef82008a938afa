"""The first-order correction against formulas written out, brute-force minimisation, and its promise never to hurt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.compensation import Energy
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.core.statistics import InputStatistics
from tests.helpers.corrections import half, make, observed


def fitted_to(inputs):
    """The rows that scales are fitted to: all but every fourth."""
    return inputs[[row for row in range(len(inputs)) if row % 4 != 3]]


def test_the_mean_step_is_the_formula():
    w, x, statistics = make()
    keep = half(w)
    result, report = Moments(scale=False).apply(w, w * keep, keep, statistics)
    assert report["corrected"] == 1
    n = len(x)
    mu = [sum(x[:, j].tolist()) / n for j in range(8)]
    var = [sum((v - mu[j]) ** 2 for v in x[:, j].tolist()) / n for j in range(8)]
    for i in range(5):
        m = sum(w[i, j].item() * mu[j] for j in range(8) if not keep[i, j])
        gain = sum(mu[k] ** 2 / var[k] for k in range(8) if keep[i, k])
        for j in range(8):
            wanted = w[i, j].item() + mu[j] / var[j] * m / gain if keep[i, j] else 0.0
            assert result[i, j].item() == pytest.approx(wanted)


def test_the_mean_step_puts_the_outputs_means_back():
    w, x, statistics = make()
    keep = half(w)
    result, report = Moments(scale=False).apply(w, w * keep, keep, statistics)
    assert torch.allclose(((w - result) @ x.T).mean(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert report["mean_shift_after"] < 1e-12 < report["mean_shift_before"]


def test_channels_that_hardly_vary_count_as_the_floor():
    w, x, _ = make()
    x[:, 0] = 1.5  # a constant: all of the mean for nothing
    keep = torch.ones_like(w, dtype=torch.bool)
    keep[:, 5:] = False
    result, report = Moments(scale=False, floor=0.1).apply(w, w * keep, keep, observed(x))
    mean, variance = x.mean(0), x.var(0, correction=0)
    variance = torch.maximum(variance, 0.1 * variance.mean())
    for i in range(5):
        m, gain = (w[i, 5:] * mean[5:]).sum(), (mean[:5] ** 2 / variance[:5]).sum()
        assert torch.allclose(result[i, :5], w[i, :5] + mean[:5] / variance[:5] * m / gain)
    assert report["corrected"] == 1


def test_no_other_change_that_restores_the_means_adds_less_variance():
    """Brute force: the quadratic programme's optimum by its whole system of equations, and random feasible steps."""
    w, x, statistics = make(seed=3)
    keep = NofM(2, 4).select(w.abs())
    result, _ = Moments(scale=False).apply(w, w * keep, keep, statistics)
    mean, variance = x.mean(0), x.var(0, correction=0)
    generator = torch.Generator().manual_seed(1)
    for i in range(len(w)):
        columns = keep[i].nonzero().squeeze(1)
        m = (w[i] * ~keep[i]) @ mean
        system = torch.zeros(len(columns) + 1, len(columns) + 1, dtype=torch.float64)
        system[:-1, :-1] = torch.diag(2 * variance[columns])
        system[:-1, -1] = system[-1, :-1] = mean[columns]
        right = torch.zeros(len(columns) + 1, dtype=torch.float64)
        right[-1] = m
        wanted = torch.linalg.solve(system, right)[:-1]
        step = (result - w * keep)[i, columns]
        assert torch.allclose(step, wanted)
        for _ in range(20):
            other = step + torch.randn(len(columns), generator=generator, dtype=torch.float64)
            other = other - mean[columns] * (other @ mean[columns] - m) / (mean[columns] @ mean[columns])
            assert (other.square() * variance[columns]).sum() >= (step.square() * variance[columns]).sum()


def test_means_come_before_scales():
    w, x, statistics = make(tokens=400, seed=7)
    keep = half(w)
    restored, _ = Moments(scale=False).apply(w, w * keep, keep, statistics)
    wanted, actual = fitted_to(x) @ w.T, fitted_to(x) @ restored.T
    scale = (wanted * actual).sum(0) / actual.square().sum(0)
    result, report = Moments().apply(w, w * keep, keep, statistics)
    assert report["corrected"] == 1 and torch.allclose(result, scale[:, None] * restored)


def test_the_chunks_of_rows_change_nothing(monkeypatch):
    w, _, statistics = make(tokens=400, seed=7)
    keep = half(w)
    whole, _ = Moments(groups=3).apply(w, w * keep, keep, statistics)
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1)  # every row a chunk of its own
    chunked, _ = Moments(groups=3).apply(w, w * keep, keep, statistics)
    assert torch.allclose(chunked, whole, rtol=1e-12)


def test_of_more_rows_than_asked_for_evenly_spaced_ones_are_used():
    w, x, statistics = make(tokens=64)
    keep = half(w)
    few = observed(x, sample_index=torch.arange(0, 64, 4))
    result, wanted = (Moments(samples=16, min_gain=0).apply(w, w * keep, keep, rows)[0] for rows in (statistics, few))
    assert torch.equal(result, wanted)
    assert not torch.equal(result, Moments(min_gain=0).apply(w, w * keep, keep, statistics)[0])


def test_few_rows_have_few_groups():
    w, _, statistics = make(tokens=16)
    keep = half(w)
    result, wanted = (Moments(mean=False, groups=groups).apply(w, w * keep, keep, statistics)[0] for groups in (8, 3))
    assert torch.equal(result, wanted)  # twelve rows to fit


def test_the_scale_is_the_least_squares_of_each_row_over_the_rows_fitted_to():
    w, x, statistics = make(seed=1)
    keep = half(w)
    result, report = Moments(mean=False, min_scale=0.01, max_scale=100).apply(w, w * keep, keep, statistics)
    fitted = fitted_to(x)
    scales = [
        torch.linalg.lstsq((fitted @ (w * keep)[i])[:, None], (fitted @ w[i])[:, None]).solution.item()
        for i in range(5)
    ]
    assert report["corrected"] == 1
    assert torch.allclose(result, torch.tensor(scales, dtype=torch.float64)[:, None] * w * keep)
    assert report["row_scale_max"].item() == pytest.approx(max(scales))


def test_scales_stay_within_their_clamps():
    w, _, statistics = make(seed=1)
    keep = half(w)
    clamped, report = Moments(mean=False, min_scale=1, max_scale=1).apply(w, w * keep, keep, statistics)
    assert torch.equal(clamped, w * keep) and report["row_scale_mean"] == 1


GROUPED = {"mean": False, "groups": 3, "min_scale": 1e-6, "max_scale": 1e6}


@pytest.fixture
def ten_channels():
    """Weight, its mask, inputs and their statistics, with more channels than three equal groups have."""
    w, x, statistics = make(tokens=400, in_features=10, seed=4)
    return w, half(w), x, statistics


def test_groups_have_factors_of_their_own_near_the_rows_common_one(ten_channels):
    w, keep, x, statistics = ten_channels
    pruned, fitted = w * keep, fitted_to(x)
    result, report = Moments(**GROUPED, shrinkage=0.2).apply(w, pruned, keep, statistics)
    assert report["corrected"] == 1
    channels = [range(4), range(4, 8), range(8, 10)]
    for i in range(5):
        wanted, parts = fitted @ w[i], [fitted[:, list(group)] @ pruned[i, list(group)] for group in channels]
        common = (sum(parts) @ wanted) / sum(parts).square().sum()
        ridge = 0.2 * sum(output @ output for output in parts) / 3
        rows = [[(a @ b).item() + (ridge if a is b else 0) for b in parts] for a in parts]
        right = [(a @ wanted + ridge * common).item() for a in parts]
        factors = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double())
        for group, factor in zip(channels, factors, strict=True):
            assert torch.allclose(result[i, list(group)], factor * pruned[i, list(group)], rtol=1e-6)


def test_groups_under_a_large_shrinkage_have_the_rows_common_factor(ten_channels):
    w, keep, _, statistics = ten_channels
    alike, _ = Moments(**GROUPED, shrinkage=1e9).apply(w, w * keep, keep, statistics)
    one, _ = Moments(mean=False).apply(w, w * keep, keep, statistics)
    assert torch.allclose(alike, one, rtol=1e-6)


def test_more_groups_lower_the_held_out_error(ten_channels):
    w, keep, _, statistics = ten_channels
    one, five = (Moments(mean=False, groups=groups).apply(w, w * keep, keep, statistics)[1] for groups in (1, 5))
    assert five["output_error_after"] < one["output_error_after"]


def test_a_matrix_that_would_be_worse_off_stays_as_it_was():
    w, x, _ = make()
    keep = torch.arange(8).expand(5, 8) < 4
    x[3::4, 4:] = 0  # in what is held out, pruning changed nothing
    result, report = Moments(scale=False).apply(w, w * keep, keep, observed(x))
    assert torch.equal(result, w * keep) and report["corrected"] == 0
    assert report["output_error_after"] == report["output_error_before"] and report["mean_shift_after"] > 0


def test_an_expert_that_no_token_reached_stays_as_it_was():
    w, _, _ = make()
    keep = torch.arange(8).expand(5, 8) < 4
    nothing = InputStatistics.uninformed(8, Moments().needs, "cpu")
    result, report = Moments().apply(w, w * keep, keep, nothing)
    assert torch.equal(result, w * keep) and report["corrected"] == 0


@pytest.fixture
def hardly_better():
    """Weight, mask, statistics, the corrected weight, and the small share of the error that the correction takes."""
    w, x, statistics = make(tokens=400, seed=7)
    keep = half(w)
    result, report = Moments(min_gain=0).apply(w, w * keep, keep, statistics)
    before, after = ((x[3::4] @ (w - weight).T).norm() for weight in (w * keep, result))
    gain = (1 - after / before).item()
    assert 0 < gain < 1 and report["corrected"] == 1
    return w, keep, statistics, result, gain


def test_a_matrix_whose_gain_suffices_is_corrected(hardly_better):
    w, keep, statistics, corrected, gain = hardly_better
    result, report = Moments(min_gain=gain - 1e-6).apply(w, w * keep, keep, statistics)
    assert torch.equal(result, corrected) and report["corrected"] == 1


def test_a_matrix_that_would_hardly_be_better_off_stays_as_it_was(hardly_better):
    w, keep, statistics, _, gain = hardly_better
    result, report = Moments(min_gain=gain + 1e-6).apply(w, w * keep, keep, statistics)
    assert torch.equal(result, w * keep) and report["corrected"] == 0
    assert report["output_error_after"] == report["output_error_before"]


ANY_CASE = {
    "seed": st.integers(0, 10**6),
    "tokens": st.sampled_from([1, 3, 4, 9, 64]),
    "mean": st.sampled_from([0.0, 1.0, 1e4]),
    "dtype": st.sampled_from([torch.float32, torch.float64]),
    "pattern": st.sampled_from([Unstructured(0.0), Unstructured(0.9, Group.matrix), NofM(2, 4)]),
    "options": st.sampled_from(
        [{}, {"mean": False}, {"scale": False}, {"energy_first": True}, {"groups": 3}, {"groups": 99}]
    ),
}


def corrected(tokens, seed, mean, dtype, pattern, options):
    """A weight with an empty column, its mask and inputs, and the corrected weight."""
    w, x, statistics = make(tokens, seed=seed, mean=mean)
    w[:, 2] = 0
    keep, w = pattern.select(w.abs()), w.to(dtype)
    return w, keep, x, Moments(**options).apply(w, w * keep, keep, statistics)[0]


@settings(deadline=None)
@given(**ANY_CASE)
def test_the_mask_and_the_precision_stay(**case):
    _, keep, _, result = corrected(**case)
    assert result.isfinite().all() and (result[~keep] == 0).all() and result.dtype == case["dtype"]


@settings(deadline=None)
@given(**ANY_CASE)
def test_the_held_out_error_never_rises(**case):
    w, keep, x, result = corrected(**case)
    held_out = x[3::4].to(case["dtype"])
    before, after = ((held_out @ (w - weight).T).norm() for weight in (w * keep, result))
    assert after <= before * (1 + 1e-5) and (len(held_out) or torch.equal(result, w * keep))


def test_energy_first_corrects_what_the_papers_compensation_leaves():
    w, _, statistics = make(seed=2)
    keep = half(w)
    energy, _ = Energy().apply(w, w * keep, keep, statistics)
    wanted, _ = Moments().apply(w, energy, keep, statistics)
    result, report = Moments(energy_first=True).apply(w, w * keep, keep, statistics)
    assert report["corrected"] == 1 and torch.equal(result, wanted)
    assert "column_energy_ratio" in report


@pytest.mark.parametrize(
    "options,message",
    [
        ({"min_scale": 0.0}, "are not a range"),
        ({"floor": 0.0}, "outside \\(0, 1\\]"),
        ({"groups": 0}, "groups=0 is too small; give at least 1"),
        ({"shrinkage": 0.0}, "shrinkage=0.0 is not positive"),
        ({"samples": 3}, "too small; give at least 4"),
        ({"min_gain": 1.0}, "min_gain=1.0 is outside \\[0, 1\\)"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Moments(**options)
