"""Least squares as a compensation: what is fitted to, what is held out, the ridge, and what stays as it was."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core import least_squares
from statprune.core.compensation import COMPENSATIONS
from statprune.core.least_squares import DAMPINGS, FittedTo, LeastSquares
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.corrections import half, make

BOTH = pytest.mark.parametrize("source", list(FittedTo))
EXACT = {"steps": 40, "damping": (0.05,), "min_gain": 0}


def observed(inputs, sample_index=None):
    """Statistics with a Gram matrix, and by default with all rows sampled; float64."""
    sample_index = torch.arange(len(inputs)) if sample_index is None else sample_index
    statistics = InputStatistics(inputs.shape[1], StatisticsKind.GRAM, sample_index, dtype=torch.float64)
    statistics.update(inputs)
    return statistics


def solution_of(w, keep, inputs, damping=0.05):
    """The normal equations' solution of each row, from the inputs that it is fitted to."""
    gram = inputs.T @ inputs
    system = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    result = torch.zeros_like(w)
    for i in range(len(w)):
        kept = keep[i].nonzero().squeeze(1)
        result[i, kept] = torch.linalg.solve(system[kept][:, kept], (system @ w[i])[kept])
    return result


def not_held_out(rows):
    return rows[[row for row in range(len(rows)) if row % 4 != 3]]


def error(w, weight, rows):
    return ((rows @ (w - weight).T).norm() / (rows @ w.T).norm()).item()


def test_with_the_gram_matrix_all_but_the_held_out_rows_are_fitted_to():
    w, x, _ = make(tokens=90)
    keep = half(w)
    sampled = torch.arange(0, 90, 3)
    result, report = LeastSquares(**EXACT).apply(w, w * keep, keep, observed(x, sampled))
    rest = x[[row for row in range(90) if row not in sampled[3::4].tolist()]]
    assert report["corrected"] == 1 and torch.allclose(result, solution_of(w, keep, rest), rtol=1e-7)


def test_with_rows_the_sampled_ones_alone_are_fitted_to():
    w, x, _ = make(tokens=90)
    keep = half(w)
    statistics = InputStatistics(8, StatisticsKind.MOMENTS, torch.arange(0, 90, 3), dtype=torch.float64)
    statistics.update(x)
    result, report = LeastSquares(FittedTo.rows, **EXACT).apply(w, w * keep, keep, statistics)
    assert report["corrected"] == 1 and torch.allclose(result, solution_of(w, keep, not_held_out(x[::3])), rtol=1e-7)


def test_where_every_token_is_sampled_both_are_the_same():
    w, x, _ = make(tokens=90)
    keep = half(w)
    options = {"damping": (0.3,), "min_gain": 0}
    gram, rows = (LeastSquares(source, **options).apply(w, w * keep, keep, observed(x))[0] for source in FittedTo)
    assert torch.allclose(gram, rows, rtol=1e-7) and not torch.equal(gram, w * keep)


@BOTH
def test_held_out_rows_change_the_judgement_and_not_the_fit(source):
    w, x, _ = make(tokens=64)
    keep = half(w)
    other = x.clone()
    other[3::4] *= 1.01
    results = [LeastSquares(source, **EXACT).apply(w, w * keep, keep, observed(inputs)) for inputs in (x, other)]
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-7)
    assert results[0][1]["output_error_after"] != results[1][1]["output_error_after"]


@BOTH
def test_the_report_tells_what_was_done(source):
    w, x, _ = make(tokens=400, seed=3)
    keep = half(w)
    result, report = LeastSquares(source, damping=(0.3,), steps=4).apply(w, w * keep, keep, observed(x))
    assert {key: float(report[key]) for key in ("corrected", "fit_damping", "fit_steps")} == {
        "corrected": 1,
        "fit_damping": 0.3,
        "fit_steps": 4,
    }
    assert 0 < report["fit_residual"] < 0.5
    mean, held_out = x.mean(0), x[3::4]
    for name, weight in (("before", w * keep), ("after", result)):
        shift = ((w - weight) @ mean).norm() / (w @ mean).norm()
        assert report[f"output_error_{name}"].item() == pytest.approx(error(w, weight, held_out))
        assert report[f"mean_shift_{name}"].item() == pytest.approx(shift.item())
    assert report["mean_shift_after"] < report["mean_shift_before"]
    assert report["relative_output_error"] == report["output_error_after"] < report["output_error_before"]
    bias = (w - w * keep) @ mean
    with_bias = held_out @ (w * keep).T + bias - held_out @ w.T
    assert report["bias_output_error"].item() == pytest.approx((with_bias.norm() / (held_out @ w.T).norm()).item())


def test_nothing_on_the_mask_has_a_lower_error_on_what_is_fitted_to():
    w, x, _ = make(tokens=400, seed=3)
    keep, rows = half(w), not_held_out(x)
    exact, _ = LeastSquares(steps=40, damping=(1e-9,), min_gain=0).apply(w, w * keep, keep, observed(x))
    moments, report = Moments(groups=8, min_gain=0).apply(w, w * keep, keep, observed(x))
    assert report["corrected"] == 1
    assert error(w, exact, rows) <= error(w, moments, rows) <= error(w, w * keep, rows)


def test_of_several_ridges_the_held_out_rows_choose():
    w, x, _ = make(tokens=24, in_features=16, seed=5)
    keep, statistics = half(w), observed(x)
    rows = {"statistics": FittedTo.rows, "min_gain": 0}
    single = {
        damping: LeastSquares(**rows, damping=(damping,)).apply(w, w * keep, keep, statistics)
        for damping in DAMPINGS[FittedTo.rows]
    }
    result, report = LeastSquares(**rows).apply(w, w * keep, keep, statistics)
    best = min(single, key=lambda damping: float(single[damping][1]["output_error_after"]))
    assert report["fit_damping"].item() == pytest.approx(best) and torch.equal(result, single[best][0])
    assert report["fit_residual"] == single[best][1]["fit_residual"]


def test_a_ridge_is_chosen_by_some_of_the_outputs(monkeypatch):
    w, x, _ = make(tokens=24, in_features=16, seed=5)
    w[0] *= 1e6  # it alone would decide
    keep, statistics = half(w), observed(x)
    monkeypatch.setattr(least_squares, "OUTPUTS_TO_CHOOSE_BY", 1)
    rows = {"statistics": FittedTo.rows, "damping": (1e-6, 0.01, 0.3, 10.0)}
    _, report = LeastSquares(**rows).apply(w, w * keep, keep, statistics)
    _, of_first = LeastSquares(**rows).apply(w[:1], (w * keep)[:1], keep[:1], statistics)
    assert report["fit_damping"] == of_first["fit_damping"]


@BOTH
def test_a_matrix_that_would_be_worse_off_stays_as_it_was(source):
    w, x, _ = make()
    keep = torch.arange(8).expand(5, 8) < 4
    x[3::4, 4:] = 0  # in what is held out, pruning changed nothing
    result, report = LeastSquares(source).apply(w, w * keep, keep, observed(x))
    assert torch.equal(result, w * keep) and report["corrected"] == 0
    assert report["output_error_after"] == report["output_error_before"]


@BOTH
def test_the_least_gain_decides(source):
    w, x, _ = make(tokens=400, seed=7)
    keep, statistics = half(w), observed(x)
    fitted, report = LeastSquares(source, damping=(0.3,), min_gain=0).apply(w, w * keep, keep, statistics)
    gain = 1 - (report["output_error_after"] / report["output_error_before"]).item()
    for min_gain, wanted in ((gain - 1e-6, fitted), (gain + 1e-6, w * keep)):
        options = {"damping": (0.3,), "min_gain": min_gain}
        assert torch.equal(LeastSquares(source, **options).apply(w, w * keep, keep, statistics)[0], wanted)


@BOTH
def test_without_held_out_rows_a_matrix_stays_as_it_was(source):
    w, x, _ = make()
    keep = half(w)
    for statistics in (InputStatistics.uninformed(8, StatisticsKind.GRAM, "cpu"), observed(x, torch.arange(3))):
        result, report = LeastSquares(source).apply(w, w * keep, keep, statistics)
        assert torch.equal(result, w * keep) and report["corrected"] == 0
        assert report["output_error_before"].isnan()
        assert report["fit_damping"].isnan() and report["fit_residual"].isnan() and report["fit_steps"] == 0


@BOTH
def test_dead_channels_keep_their_weights_whatever_they_are(source):
    w, x, _ = make(tokens=64)
    x[:, 2] = 0
    x[[row for row in range(64) if row % 4 != 3], 5] = 0  # alive in the held-out rows alone
    keep = torch.ones_like(w, dtype=torch.bool)
    keep[:, ::2] = False
    keep[:, 2] = True
    pruned = w * keep
    pruned[:, 2] = 0.25  # of a method that changed it
    result, report = LeastSquares(source, min_gain=0, damping=(0.1,)).apply(w, pruned, keep, observed(x))
    assert report["corrected"] == 1 and torch.equal(result[:, [2, 5]], pruned[:, [2, 5]])
    assert not torch.equal(result, pruned)


@BOTH
def test_zero_inputs_change_nothing(source):
    w, x, _ = make()
    result, report = LeastSquares(source).apply(w, w * half(w), half(w), observed(x * 0))
    assert torch.equal(result, w * half(w)) and report["corrected"] == 0


@BOTH
def test_after_sparsegpt_it_starts_from_the_updated_weights(source):
    w, x, _ = make(tokens=200, in_features=16, seed=2)
    statistics = observed(x)
    solution = get_method("sparsegpt").solve(w, statistics, NofM(2, 4))
    result, _ = LeastSquares(source, **EXACT).apply(w, solution.weight, solution.keep, statistics)
    assert torch.allclose(result, solution_of(w, solution.keep, not_held_out(x)), rtol=1e-6)


def test_matrices_with_the_same_input_share_the_gram_matrix(monkeypatch):
    w, x, _ = make()
    keep, statistics, seen = half(w), observed(x), []
    original = LeastSquares._second_moments
    monkeypatch.setattr(LeastSquares, "_second_moments", lambda *given: seen.append(1) or original(*given))
    for _ in range(2):
        LeastSquares().apply(w, w * keep, keep, statistics)
        LeastSquares(samples=32).apply(w, w * keep, keep, statistics)
    assert len(seen) == 2


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 4, 9, 64]),
    mean=st.sampled_from([0.0, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    pattern=st.sampled_from([Unstructured(0.0), Unstructured(0.999), Unstructured(0.9, Group.matrix), NofM(2, 4)]),
    source=st.sampled_from(list(FittedTo)),
)
def test_the_mask_stays_and_the_held_out_error_never_rises(seed, tokens, mean, dtype, pattern, source):
    w, x, _ = make(tokens, seed=seed, mean=mean)
    w[:, 2], w = 0, w.to(dtype)
    keep = pattern.select(w.abs())
    result, _ = LeastSquares(source).apply(w, w * keep, keep, observed(x))
    assert result.isfinite().all() and (result[~keep] == 0).all() and result.dtype == dtype
    held_out = x[3::4].to(dtype)
    before, after = ((held_out @ (w - weight).T).norm() for weight in (w * keep, result))
    assert after <= before * (1 + 1e-5) and (len(held_out) or torch.equal(result, w * keep))


@pytest.mark.parametrize(("scale", "message"), [(1e25, "not finite"), (1e-30, "squares vanish")])
def test_a_gram_matrix_that_says_nothing_is_refused(scale, message):
    w, x, _ = make()
    statistics = InputStatistics(8, StatisticsKind.GRAM, torch.arange(len(x)))  # products in float32
    statistics.update(x.float() * scale)
    with pytest.raises(ValueError, match=message):
        LeastSquares().apply(w, w * half(w), half(w), statistics)


@pytest.mark.parametrize(
    ("name", "wrong", "least"),
    [
        ("steps", 0, 1),
        ("samples", 3, 4),
        ("min_gain", -0.1, 0.0),
        ("min_gain", 1.0, 0.99),
    ],
)
def test_the_bound_of_an_option_is_taken(name, wrong, least):
    with pytest.raises(ValueError, match=f"compensation.{name}={wrong}"):
        LeastSquares(**{name: wrong})
    assert getattr(LeastSquares(**{name: least}), name) == least


@pytest.mark.parametrize("wrong", [(0.0,), (0.1, -1), (float("inf"),), ("much",)])
def test_ridges_that_are_no_positive_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"compensation.damping=\[.*\] is no list of positive numbers"):
        LeastSquares(damping=wrong)


def test_defaults_needs_and_labels():
    assert asdict(LeastSquares()) == {
        "statistics": FittedTo.gram,
        "steps": 10,
        "damping": (),
        "samples": 512,
        "min_gain": 0.02,
    }
    assert COMPENSATIONS.get("least_squares") is LeastSquares
    assert [LeastSquares(source).needs for source in FittedTo] == [StatisticsKind.GRAM, StatisticsKind.MOMENTS]
    labels = [LeastSquares(source).label("least_squares") for source in FittedTo]
    assert labels == ["least_squares", "least_squares, rows"]
