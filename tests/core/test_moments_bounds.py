"""The first-order correction's bounds, defaults and report."""

from dataclasses import asdict

import pytest
import torch

from statprune.core.moments import Moments
from statprune.core.output_errors import error_without_and_with_bias
from tests.helpers.corrections import half, make, observed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the former has no largest float64
def test_where_no_channel_varies_the_scale_step_is_left(dtype):
    """The floor is 0 as well, so that μ/σ² is 0/0 or infinite: no mean step can be taken, and none is needed."""
    w, x, _ = make(tokens=16)
    x[:] = torch.tensor([0.0, 1.5, -1.5, 2.5] * 2)
    w, keep = w.to(dtype), half(w)
    options = {"min_scale": 1e-6, "max_scale": 1e6}
    result, report = Moments(**options).apply(w, w * keep, keep, observed(x))
    wanted, _ = Moments(mean=False, **options).apply(w, w * keep, keep, observed(x))
    assert report["corrected"] == 1 and torch.equal(result, wanted) and not torch.equal(result, w * keep)


def test_groups_are_drawn_to_the_clamped_common_factor():
    w, x, statistics = make(tokens=400, in_features=8, seed=4)
    keep = half(w)
    result, report = Moments(mean=False, groups=2, max_scale=1.0, min_gain=0).apply(w, w * keep, keep, statistics)
    fitted, halves = x[[row for row in range(400) if row % 4 != 3]], (slice(0, 4), slice(4, 8))
    for i in range(5):
        dense, parts = fitted @ w[i], torch.stack([fitted[:, half] @ (w * keep)[i, half] for half in halves])
        products, target = parts @ parts.T, parts @ dense
        common = (target.sum() / products.sum()).clamp(0.5, 1.0)
        ridge = 0.3 * products.trace() / 2
        factors = torch.linalg.solve(products + ridge * torch.eye(2).double(), target + ridge * common).clamp(0.5, 1.0)
        for part, factor in zip(halves, factors, strict=True):
            assert torch.allclose(result[i, part], factor * (w * keep)[i, part])
    assert report["corrected"] == 1


def test_a_row_that_keeps_no_channel_with_a_mean_is_left_alone():
    w, x, _ = make()
    x[:, 1:4] = 0.0  # dead: not even rounding is left of their means
    keep = half(w)
    keep[0] = (x == 0).all(0)
    result, report = Moments(scale=False).apply(w, w * keep, keep, observed(x))
    assert result.isfinite().all() and torch.equal(result[0], w[0] * keep[0]) and report["corrected"] == 1


def test_the_rows_asked_for_are_those_of_the_option():
    assert Moments().samples == 512 and Moments(samples=64).samples == 64


def test_the_defaults_are_the_documented_ones():
    assert asdict(Moments()) == {
        "mean": True,
        "scale": True,
        "energy_first": False,
        "groups": 1,
        "shrinkage": 0.3,
        "floor": 1e-3,
        "min_scale": 0.5,
        "max_scale": 2.0,
        "samples": 512,
        "min_gain": 0.02,
    }


def test_a_row_without_output_keeps_the_scale_1():
    w, _, statistics = make(seed=1)
    keep = half(w)
    keep[2] = False
    _, report = Moments(mean=False, groups=2, min_scale=1e-9, max_scale=1e9).apply(w, w * keep, keep, statistics)
    assert report["row_scale_min"] <= 1 <= report["row_scale_max"]
    nothing, of_nothing = Moments(mean=False).apply(w, w * 0, keep & False, statistics)
    assert (nothing == 0).all() and of_nothing["row_scale_min"] == of_nothing["row_scale_max"] == 1


@pytest.mark.parametrize("clamps", [(0.9, 1.05), (0.99, 100.0), (1e-6, 1.01)])
@pytest.mark.parametrize("groups", [1, 3])
def test_every_factor_is_within_both_clamps(clamps, groups):
    w, _, statistics = make(tokens=400, seed=1)
    keep = half(w)
    options = {"mean": False, "groups": groups, "min_gain": 0}
    _, free = Moments(**options, min_scale=1e-6, max_scale=1e6).apply(w, w * keep, keep, statistics)
    _, report = Moments(**options, min_scale=clamps[0], max_scale=clamps[1]).apply(w, w * keep, keep, statistics)
    assert clamps[0] <= report["row_scale_min"] and report["row_scale_max"] <= clamps[1]
    assert free["row_scale_min"] < report["row_scale_min"] or free["row_scale_max"] > report["row_scale_max"]


def test_the_report_tells_the_errors_before_and_after():
    w, x, statistics = make(tokens=400, seed=7)
    keep = half(w)
    result, report = Moments().apply(w, w * keep, keep, statistics)
    for name, weight in (("before", w * keep), ("after", result)):
        error = (x[3::4] @ (w - weight).T).norm() / (x[3::4] @ w.T).norm()
        shift = ((w - weight) @ x.mean(0)).norm() / (w @ x.mean(0)).norm()
        assert report[f"output_error_{name}"].item() == pytest.approx(error.item())
        assert report[f"mean_shift_{name}"].item() == pytest.approx(shift.item())
    assert report["relative_output_error"] == report["output_error_after"]
    _, wanted = error_without_and_with_bias(w, w * keep, x[3::4], x.mean(0))
    assert report["bias_output_error"].item() == pytest.approx(wanted.item())


@pytest.mark.parametrize(
    ("name", "wrong", "least"),
    [("groups", 0, 1), ("shrinkage", 0.0, 1e-9), ("floor", 1.1, 1.0), ("samples", 3, 4), ("min_gain", -0.1, 0.0)],
)
def test_the_bound_of_an_option_is_taken(name, wrong, least):
    with pytest.raises(ValueError, match=name):
        Moments(**{name: wrong})
    assert getattr(Moments(**{name: least}), name) == least


@pytest.mark.parametrize("shrinkage", [float("inf"), float("nan")])
def test_a_shrinkage_that_is_no_number_is_refused(shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        Moments(shrinkage=shrinkage)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "moments"),
        ({"mean": False}, "scale"),
        ({"scale": False}, "mean"),
        ({"mean": False, "scale": False}, "none"),
    ],
)
def test_a_label_tells_which_half_is_on(options, label):
    assert Moments(**options).label("moments") == label
    assert Moments(energy_first=True).label("moments") == "moments, energy first"
