"""The first-order correction against formulas written out, brute-force minimisation, and its promise never to hurt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.config.schema import COMPENSATIONS
from statprune.core import parts
from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics
from statprune.pruning.loop import prune
from statprune.runs.pipeline import run
from tests.helpers.command import tiny
from tests.helpers.models import tiny_llama


def make(tokens=64, out_features=5, in_features=8, seed=0, mean=1.5):
    """Weight, inputs with means and different variances, statistics that keep all rows; float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64)
    spread = torch.rand(in_features, generator=generator, dtype=torch.float64) + 0.2
    centre = mean * torch.randn(in_features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, in_features, generator=generator, dtype=torch.float64) * spread + centre
    statistics = InputStatistics(in_features, sample_index=torch.arange(tokens), dtype=torch.float64)
    statistics.update(inputs)
    return weight, inputs, statistics


def test_the_mean_step_is_the_formula():
    w, x, statistics = make()
    keep = Unstructured(0.5).select(w.abs())
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
    assert torch.allclose(((w - result) @ x.T).mean(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert report["mean_shift_after"] < 1e-12 < report["mean_shift_before"]


def test_channels_that_hardly_vary_count_as_the_floor():
    w, x, _ = make()
    x[:, 0] = 1.5  # a constant: all of the mean for nothing
    statistics = InputStatistics(8, sample_index=torch.arange(len(x)), dtype=torch.float64)
    statistics.update(x)
    keep = torch.ones_like(w, dtype=torch.bool)
    keep[:, 5:] = False
    result, report = Moments(scale=False, floor=0.1).apply(w, w * keep, keep, statistics)
    mean, variance = x.mean(0), x.var(0, correction=0)
    variance = torch.maximum(variance, 0.1 * variance.mean())
    for i in range(5):
        m, gain = (w[i, 5:] * mean[5:]).sum(), (mean[:5] ** 2 / variance[:5]).sum()
        assert torch.allclose(result[i, :5], w[i, :5] + mean[:5] / variance[:5] * m / gain)
    assert report["corrected"] == 1


def test_means_come_before_scales_whatever_the_parts(monkeypatch):
    w, x, statistics = make(tokens=400, seed=7)
    keep = Unstructured(0.5).select(w.abs())
    restored, _ = Moments(scale=False).apply(w, w * keep, keep, statistics)
    fitted = x[[row for row in range(len(x)) if row % 4 != 3]]
    wanted, given = fitted @ w.T, fitted @ restored.T
    scale = (wanted * given).sum(0) / given.square().sum(0)
    result, report = Moments().apply(w, w * keep, keep, statistics)
    assert report["corrected"] == 1 and torch.allclose(result, scale[:, None] * restored)
    many, _ = Moments(groups=3).apply(w, w * keep, keep, statistics)
    monkeypatch.setitem(parts.PART, "cpu", 1)  # every row a part of its own
    assert torch.allclose(Moments(groups=3).apply(w, w * keep, keep, statistics)[0], many, rtol=1e-12)


def test_of_more_rows_than_asked_for_evenly_spaced_ones_are_used():
    w, x, statistics = make(tokens=64)
    keep = Unstructured(0.5).select(w.abs())
    few = InputStatistics(8, sample_index=torch.arange(64), dtype=torch.float64)
    few.update(x)
    few._rows = [x[::4]]
    result, wanted = (Moments(samples=16, min_gain=0).apply(w, w * keep, keep, given)[0] for given in (statistics, few))
    assert torch.equal(result, wanted)
    assert not torch.equal(result, Moments(min_gain=0).apply(w, w * keep, keep, statistics)[0])


def test_few_rows_have_few_groups():
    w, _, statistics = make(tokens=16)
    keep = Unstructured(0.5).select(w.abs())
    result, wanted = (Moments(mean=False, groups=groups).apply(w, w * keep, keep, statistics)[0] for groups in (8, 3))
    assert torch.equal(result, wanted)  # twelve rows to fit


def test_no_other_change_that_restores_the_means_adds_less_variance():
    """Brute force: the quadratic programme's optimum by its whole system of equations, and random feasible steps."""
    w, x, statistics = make(seed=3)
    keep = NofM(2, 4).select(w.abs())
    result, _ = Moments(scale=False).apply(w, w * keep, keep, statistics)
    mean, variance = x.mean(0), x.var(0, correction=0)
    generator = torch.Generator().manual_seed(1)
    for i in range(len(w)):
        kept = keep[i].nonzero().squeeze(1)
        m = (w[i] * ~keep[i]) @ mean
        system = torch.zeros(len(kept) + 1, len(kept) + 1, dtype=torch.float64)
        system[:-1, :-1] = torch.diag(2 * variance[kept])
        system[:-1, -1] = system[-1, :-1] = mean[kept]
        right = torch.zeros(len(kept) + 1, dtype=torch.float64)
        right[-1] = m
        wanted = torch.linalg.solve(system, right)[:-1]
        step = (result - w * keep)[i, kept]
        assert torch.allclose(step, wanted)
        for _ in range(20):
            other = step + torch.randn(len(kept), generator=generator, dtype=torch.float64)
            other = other - mean[kept] * (other @ mean[kept] - m) / (mean[kept] @ mean[kept])
            assert (other.square() * variance[kept]).sum() >= (step.square() * variance[kept]).sum()


def test_the_scale_is_the_least_squares_of_each_row_over_the_rows_fitted_to():
    w, x, statistics = make(seed=1)
    keep = Unstructured(0.5).select(w.abs())
    result, report = Moments(mean=False, min_scale=0.01, max_scale=100).apply(w, w * keep, keep, statistics)
    fitted = x[[row for row in range(len(x)) if row % 4 != 3]]
    scales = [
        torch.linalg.lstsq((fitted @ (w * keep)[i])[:, None], (fitted @ w[i])[:, None]).solution.item()
        for i in range(5)
    ]
    assert report["corrected"] == 1
    assert torch.allclose(result, torch.tensor(scales, dtype=torch.float64)[:, None] * w * keep)
    assert report["row_scale_max"].item() == pytest.approx(max(scales))
    clamped, report = Moments(mean=False, min_scale=1, max_scale=1).apply(w, w * keep, keep, statistics)
    assert torch.equal(clamped, w * keep) and report["row_scale_mean"] == 1


def test_groups_have_factors_of_their_own_near_the_rows_common_one():
    w, x, statistics = make(tokens=400, in_features=10, seed=4)
    keep = Unstructured(0.5).select(w.abs())
    pruned, fitted = w * keep, x[[row for row in range(len(x)) if row % 4 != 3]]
    options = {"mean": False, "groups": 3, "min_scale": 1e-6, "max_scale": 1e6}
    result, report = Moments(**options, shrinkage=0.2).apply(w, pruned, keep, statistics)
    assert report["corrected"] == 1
    channels = [range(4), range(4, 8), range(8, 10)]
    for i in range(5):
        wanted, given = fitted @ w[i], [fitted[:, list(group)] @ pruned[i, list(group)] for group in channels]
        common = (sum(given) @ wanted) / sum(given).square().sum()
        ridge = 0.2 * sum(output @ output for output in given) / 3
        rows = [[(a @ b).item() + (ridge if a is b else 0) for b in given] for a in given]
        right = [(a @ wanted + ridge * common).item() for a in given]
        factors = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(right).double())
        for group, factor in zip(channels, factors, strict=True):
            assert torch.allclose(result[i, list(group)], factor * pruned[i, list(group)], rtol=1e-6)
    alike, _ = Moments(**options, shrinkage=1e9).apply(w, pruned, keep, statistics)
    one, _ = Moments(mean=False).apply(w, pruned, keep, statistics)
    assert torch.allclose(alike, one, rtol=1e-6)
    errors = [Moments(mean=False, groups=groups).apply(w, pruned, keep, statistics)[1] for groups in (1, 5)]
    assert errors[1]["output_error_after"] < errors[0]["output_error_after"]


def test_a_layer_that_would_be_worse_off_is_left_as_it_was():
    w, x, _ = make()
    keep = torch.arange(8).expand(5, 8) < 4
    x[3::4, 4:] = 0  # in what is held out, pruning changed nothing
    statistics = InputStatistics(8, sample_index=torch.arange(len(x)), dtype=torch.float64)
    statistics.update(x[[row for row in range(len(x)) if row % 4 != 3]])
    statistics._rows = [x]
    result, report = Moments(scale=False).apply(w, w * keep, keep, statistics)
    assert torch.equal(result, w * keep) and report["corrected"] == 0
    assert report["output_error_after"] == report["output_error_before"] and report["mean_shift_after"] > 0
    nothing = InputStatistics.unknown(8, Moments().needs, "cpu")  # an expert that no token reached
    result, report = Moments().apply(w, w * keep, keep, nothing)
    assert torch.equal(result, w * keep) and report["corrected"] == 0


def test_a_layer_that_would_hardly_be_better_off_is_left_as_it_was():
    w, x, statistics = make(tokens=400, seed=7)
    keep = Unstructured(0.5).select(w.abs())
    pruned = w * keep
    result, report = Moments(min_gain=0).apply(w, pruned, keep, statistics)
    before, after = ((x[3::4] @ (w - weight).T).norm() for weight in (pruned, result))
    gain = (1 - after / before).item()
    assert 0 < gain < 1 and report["corrected"] == 1
    most, report = Moments(min_gain=gain - 1e-6).apply(w, pruned, keep, statistics)
    assert torch.equal(most, result) and report["corrected"] == 1
    less, report = Moments(min_gain=gain + 1e-6).apply(w, pruned, keep, statistics)
    assert torch.equal(less, pruned) and report["corrected"] == 0
    assert report["output_error_after"] == report["output_error_before"]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 3, 4, 9, 64]),
    mean=st.sampled_from([0.0, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    pattern=st.sampled_from([Unstructured(0.0), Unstructured(0.9, Group.matrix), NofM(2, 4)]),
    options=st.sampled_from(
        [{}, {"mean": False}, {"scale": False}, {"energy_first": True}, {"groups": 3}, {"groups": 99}]
    ),
)
def test_it_never_raises_the_held_out_error_and_keeps_the_mask(seed, tokens, mean, dtype, pattern, options):
    w, x, statistics = make(tokens, seed=seed, mean=mean)
    w[:, 2] = 0
    keep, w = pattern.select(w.abs()), w.to(dtype)
    result, _ = Moments(**options).apply(w, w * keep, keep, statistics)
    assert result.isfinite().all() and (result[~keep] == 0).all() and result.dtype == dtype
    held_out = x[3::4].to(dtype)
    before, after = ((held_out @ (w - weight).T).norm() for weight in (w * keep, result))
    assert after <= before * (1 + 1e-5) and (len(held_out) or torch.equal(result, w * keep))


def test_energy_first_corrects_what_the_papers_compensation_leaves():
    w, _, statistics = make(seed=2)
    keep = Unstructured(0.5).select(w.abs())
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
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        Moments(**options)


@pytest.mark.parametrize("propagation", ["pruned", "sequential", "dense"])
def test_a_model_is_corrected_layer_by_layer(propagation):
    windows, reports, weights = torch.arange(4 * 32).view(4, 32) % 97, [], {}
    model, dense = tiny_llama(), dict(tiny_llama().named_parameters())

    class Spy(Moments):
        def apply(self, dense, pruned, keep, statistics):
            weights[len(weights)] = statistics.rows[3::4]
            return super().apply(dense, pruned, keep, statistics)

    prune(
        model,
        windows,
        get_method("magnitude"),
        Unstructured(0.5),
        Spy(samples=128),
        propagation,
        on_block=lambda block, count, layers: reports.extend(layers),
    )
    assert len(reports) == 21
    for report, rows in zip(reports, weights.values(), strict=True):
        name = f"model.layers.{report['block']}.{report['layer']}.weight"
        before, after = dense[name], model.get_parameter(name)
        error = (rows @ (before - after).T).norm() / (rows @ before.T).norm()
        assert report["relative_output_error"] == pytest.approx(error.item(), rel=1e-4)
        assert report["output_error_after"] <= report["output_error_before"]
    assert sum(report["corrected"] for report in reports) >= 5  # random layers' inputs have small means


def test_runs_record_the_correction_and_count_layers_left_alone(tiny_folder, tmp_path):
    config = tiny(tiny_folder, "method=wanda", "compensation=moments", "compensation.samples=64")
    assert config.resolved()["compensation"]["name"] == "moments" and list(COMPENSATIONS) == ["energy", "moments"]
    record = run(config, tmp_path)
    assert record["correction"]["corrected"] + record["correction"]["left"] == 21
    assert record["correction"]["output_error_after"] <= record["correction"]["output_error_before"]
