"""Energy compensation against the paper's formula, written out in float64."""

import math
from dataclasses import asdict

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.patterns import Unstructured
from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.core.statistics import InputStatistics
from tests.helpers.matrices import random_matrix

STEPS = [("columns", "rows"), ("columns",), ("rows",), ("rows", "columns")]


def transposed(*matrices):
    return tuple([list(line) for line in zip(*matrix, strict=True)] for matrix in matrices)


def naive_energy(weight, pruned, mask, steps, clamps=(0.5, 2.0), epsilon=1e-12):
    """The paper's steps on nested lists, and the scales of each step."""
    scales = {}
    for step in steps:
        if step == "columns":  # the same along the other direction
            weight, pruned, mask = transposed(weight, pruned, mask)
        for i, line in enumerate(weight):
            mu = sum(line) / len(line)
            e = sum((v - mu) ** 2 for v in line)
            p = sum((v - mu) ** 2 for v in pruned[i])
            s = min(max(math.sqrt(e / (p + epsilon)), clamps[0]), clamps[1])
            scales.setdefault(step, []).append(s)
            pruned[i] = [((v - mu) * s + mu) * mask[i][j] for j, v in enumerate(pruned[i])]
        if step == "columns":
            weight, pruned, mask = transposed(weight, pruned, mask)
    return torch.tensor(pruned, dtype=torch.float64), scales


def compensated(steps):
    """Weight and mask of a half-pruned matrix, and what the compensation makes of it."""
    w, _, statistics = random_matrix()
    keep = Unstructured(0.5).select(w.abs())
    energy = Energy("columns" in steps, "rows" in steps, rows_first=len(steps) > 1 and steps[0] == "rows")
    return w, keep, *energy.apply(w, w * keep, keep, statistics)


@pytest.mark.parametrize("steps", STEPS)
def test_energy_compensation_is_the_papers_formula(steps):
    w, keep, result, _ = compensated(steps)
    assert torch.allclose(result, naive_energy(w.tolist(), (w * keep).tolist(), keep.tolist(), steps)[0])


@pytest.mark.parametrize("steps", STEPS)
def test_energy_compensation_reports_the_scales_of_its_own_steps(steps):
    _, _, _, report = compensated(steps)
    assert ("row_scale_min" in report) == ("rows" in steps)
    assert ("column_scale_min" in report) == ("columns" in steps)


@pytest.mark.parametrize("steps", STEPS)
def test_energy_compensation_reports_the_energy_ratio_that_remains(steps):
    w, _, result, report = compensated(steps)
    ratio = (result - w.mean(0)).square().sum() / (w - w.mean(0)).square().sum()
    assert report["column_energy_ratio"].item() == pytest.approx(ratio.item())


def test_energy_without_epsilon_leaves_empty_rows_and_columns_empty():
    w = torch.tensor([[1.0, 0, 2], [0, 0, 0], [3, 0, 4]])
    result, report = Energy(epsilon=0).apply(w, w * (w > 1), w > 1, InputStatistics(3))
    assert result.isfinite().all() and (result[w <= 1] == 0).all() and report["row_scale_max"].isfinite()


def spread_out(**options):
    """A matrix whose scales are far apart, its mask, what the compensation makes of it, and the formula's answer."""
    w, _, statistics = random_matrix(8, 6)
    w, keep = w * torch.logspace(-1, 1, 8).double()[:, None], torch.ones(8, 6, dtype=torch.bool)
    keep[0, 1:] = keep[1:, 0] = False
    pruned = w * keep * torch.logspace(-2, 1, 6).double()
    result, report = Energy(**options).apply(w, pruned, keep, statistics)
    clamps = options.get("min_scale", 0.5), options.get("max_scale", 2.0)
    given = (w.tolist(), pruned.tolist(), keep.tolist())
    return result, report, *naive_energy(*given, ("columns", "rows"), clamps, options.get("epsilon", 1e-12))


CLAMPS = [{}, {"min_scale": 0.9, "max_scale": 1.1}, {"min_scale": 1e-6}, {"max_scale": 1e6}, {"epsilon": 3.0}]


@pytest.mark.parametrize("options", CLAMPS, ids=str)
def test_scales_are_clamped_on_both_sides(options):
    result, _, wanted, _ = spread_out(**options)
    assert torch.allclose(result, wanted)


@pytest.mark.parametrize("options", CLAMPS, ids=str)
def test_the_report_has_the_scales_of_the_formula(options):
    _, report, _, scales = spread_out(**options)
    low, high = options.get("min_scale", 0.5), options.get("max_scale", 2.0)
    for name, of_step in (("column", scales["columns"]), ("row", scales["rows"])):
        assert report[f"{name}_scale_min"].item() == pytest.approx(min(of_step))
        assert report[f"{name}_scale_max"].item() == pytest.approx(max(of_step))
        assert report[f"{name}_scale_mean"].item() == pytest.approx(sum(of_step) / len(of_step))
        clamped = sum(scale <= low or scale >= high for scale in of_step) / len(of_step)
        assert report[f"{name}_scale_clamped"].item() == pytest.approx(clamped)


def test_both_clamps_are_met():
    """Without which the test of the clamps would show nothing."""
    _, _, _, scales = spread_out()
    assert {0.5, 2.0} <= {*scales["columns"], *scales["rows"]}


@pytest.mark.parametrize("steps", STEPS)
def test_energy_compensation_reports_the_ratio_of_the_rows(steps):
    w, _, result, report = compensated(steps)
    mean = w.mean(1, keepdim=True)
    ratio = (result - mean).square().sum() / (w - mean).square().sum()
    assert report["row_energy_ratio"].item() == pytest.approx(ratio.item())


@pytest.mark.parametrize("steps", STEPS)
def test_the_chunks_of_rows_change_nothing(steps, monkeypatch):
    _, _, whole, of_whole = compensated(steps)
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1)
    _, _, chunked, of_chunks = compensated(steps)
    assert torch.allclose(chunked, whole, rtol=1e-12)
    assert {key: value.item() for key, value in of_chunks.items()} == pytest.approx(
        {key: value.item() for key, value in of_whole.items()}
    )


def test_neither_the_dense_nor_the_pruned_weight_is_changed():
    w, _, statistics = random_matrix()
    keep = Unstructured(0.5).select(w.abs())
    dense, pruned = w.clone(), w * keep
    given = pruned.clone()
    Energy().apply(dense, given, keep, statistics)
    assert torch.equal(dense, w) and torch.equal(given, pruned)


@pytest.mark.parametrize(("columns", "rows"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_matrix_that_lost_nothing_stays_as_it_is(columns, rows):
    w, _, statistics = random_matrix()
    keep = torch.ones_like(w, dtype=torch.bool)
    result, _ = Energy(columns, rows, epsilon=0).apply(w, w, keep, statistics)
    assert torch.allclose(result, w, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "energy"),
        ({"rows_first": True}, "energy, rows first"),
        ({"rows": False}, "columns"),
        ({"columns": False}, "rows"),
        ({"columns": False, "rows": False}, "none"),
    ],
)
def test_a_label_tells_which_half_is_on(options, label):
    assert Energy(**options).label("energy") == label


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (-1.0, 2.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_clamps_that_are_no_range_are_refused(low, high):
    with pytest.raises(ValueError, match="are not a range"):
        Energy(min_scale=low, max_scale=high)


def test_clamps_that_are_equal_and_no_epsilon_are_taken():
    assert Energy(min_scale=1.0, max_scale=1.0, epsilon=0.0).max_scale == 1


@pytest.mark.parametrize("epsilon", [-1e-12, float("nan")])
def test_an_epsilon_that_is_no_small_number_is_refused(epsilon):
    with pytest.raises(ValueError, match="is negative"):
        Energy(epsilon=epsilon)


def test_the_defaults_are_the_documented_ones():
    assert asdict(Energy()) == {
        "columns": True,
        "rows": True,
        "rows_first": False,
        "min_scale": 0.5,
        "max_scale": 2.0,
        "epsilon": 1e-12,
    }
    assert Energy().samples == 0


def test_a_row_and_a_column_without_energy_have_the_scale_1():
    w = torch.full((3, 4), 0.25)
    _, report = Energy(epsilon=0).apply(w, w, w > 0, InputStatistics(4))
    assert {report[f"{name}_scale_{end}"].item() for name in ("row", "column") for end in ("min", "max")} == {1.0}
