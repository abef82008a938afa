"""The first-order correction's steps one by one: directions, factors, chunks, and options that another switches off."""

import pytest
import torch

from statprune.core import moments
from statprune.core.held_out import evenly_spaced, split
from statprune.core.moments import Moments
from tests.helpers.corrections import half, make, observed


def test_a_channel_without_variance_has_no_direction():
    x = torch.tensor([[0.0, 1.5, -1.5]]).double().expand(8, 3)
    mean, direction = Moments()._direction(observed(x), torch.float64)
    assert mean.tolist() == [0, 1.5, -1.5] and direction.tolist() == [0, 0, 0]


def test_a_small_gain_restores_the_means_too():
    w, _, _ = make()
    mean, keep = torch.full((8,), 0.01).double(), half(w)
    pruned = w * keep
    moments._restore_means(pruned, w, keep, mean, mean / 4)
    assert torch.allclose(pruned @ mean, w @ mean, rtol=1e-12) and (pruned[~keep] == 0).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_the_factors_do_not_depend_on_the_scale_of_the_inputs(groups):
    w, x, statistics = make(tokens=400, seed=4)
    keep, correction = half(w), Moments(mean=False, groups=groups, min_gain=0)
    result, _ = correction.apply(w, w * keep, keep, statistics)
    small, report = correction.apply(w, w * keep, keep, observed(x * 2**-12))
    assert report["corrected"] == 1 and torch.allclose(small, result, rtol=1e-12)


def test_groups_whose_outputs_cancel_are_drawn_to_1():
    x = torch.randn(16, 1, generator=torch.Generator().manual_seed(0)).double()
    parts, dense = torch.stack([x.T, -x.T]), 0.5 * x + 0.3
    factors = Moments()._scales(parts, dense)
    energy, target = x.square().sum(), (x * dense).sum()
    products = torch.stack([torch.stack([energy + 1, -energy]), torch.stack([-energy, energy + 1])])
    wanted = torch.linalg.solve(products, torch.stack([target + 1, 1 - target])).clamp(0.5, 2.0)
    assert torch.allclose(factors, wanted[None])


def test_twelve_rows_to_fit_have_three_groups():
    w, _, statistics = make(tokens=16)
    keep = half(w)
    three, two = (
        Moments(mean=False, groups=groups, min_gain=0).apply(w, w * keep, keep, statistics)[1] for groups in (3, 2)
    )
    assert three["row_scale_mean"] != two["row_scale_mean"]


def test_chunks_are_as_large_as_what_is_computed_of_a_row(monkeypatch):
    asked, chunks = [], moments.row_chunks
    monkeypatch.setattr(moments, "row_chunks", lambda matrix, entries: asked.append(entries) or chunks(matrix, entries))
    w, _, statistics = make(tokens=64)
    Moments(groups=3).apply(w, w * half(w), half(w), statistics)
    assert asked == [(3 + 1) * (48 + 3)]


def test_without_rows_the_report_has_the_scale_1_whatever_the_clamps():
    w, x, _ = make()
    keep = half(w)
    result, report = Moments(min_scale=1.5).apply(w, w * keep, keep, observed(x, torch.tensor([], dtype=torch.int64)))
    assert report["row_scale_min"] == report["row_scale_max"] == 1 and torch.equal(result, w * keep)
    assert report["corrected"] == 0 and report["corrected"].dtype == torch.float64


def test_an_error_that_does_not_grow_suffices_where_no_gain_is_asked_for():
    w, _, statistics = make()
    keep = half(w)
    correction = Moments(mean=False, min_scale=1, max_scale=1, min_gain=0)
    assert correction.apply(w, w * keep, keep, statistics)[1]["corrected"] == 1


def test_rows_are_held_out_and_taken_evenly():
    rows = torch.arange(10.0)[:, None]
    fitted, held_out = split(rows)
    assert fitted[:, 0].tolist() == [0, 1, 2, 4, 5, 6, 8, 9] and held_out[:, 0].tolist() == [3, 7]
    assert evenly_spaced(rows, 4)[:, 0].tolist() == [0, 2, 5, 7]
    assert torch.equal(evenly_spaced(rows, 10), rows) and torch.equal(evenly_spaced(rows, 11), rows)


@pytest.mark.parametrize(
    ("half_off", "name", "value"),
    [
        ("mean", "floor", 0.1),
        ("scale", "groups", 2),
        ("scale", "shrinkage", 0.1),
        ("scale", "min_scale", 0.1),
        ("scale", "max_scale", 3.0),
    ],
)
def test_an_option_of_a_half_that_is_off_is_refused(half_off, name, value):
    with pytest.raises(ValueError, match=f"{name}={value} has no effect with compensation.{half_off}=false"):
        Moments(**{half_off: False, name: value})
