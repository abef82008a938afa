"""Energy compensation against the paper's formula, written out in float64."""

import math

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.patterns import Unstructured
from statprune.core.statistics import InputStatistics
from tests.helpers.matrices import random_matrix

STEPS = [("columns", "rows"), ("columns",), ("rows",), ("rows", "columns")]


def transposed(*matrices):
    return tuple([list(line) for line in zip(*matrix, strict=True)] for matrix in matrices)


def naive_energy(weight, pruned, mask, steps):
    """The paper's steps on nested lists, with the default clamps and epsilon."""
    for step in steps:
        if step == "columns":  # the same along the other direction
            weight, pruned, mask = transposed(weight, pruned, mask)
        for i, line in enumerate(weight):
            mu = sum(line) / len(line)
            e = sum((v - mu) ** 2 for v in line)
            p = sum((v - mu) ** 2 for v in pruned[i])
            s = min(max(math.sqrt(e / (p + 1e-12)), 0.5), 2.0)
            pruned[i] = [((v - mu) * s + mu) * mask[i][j] for j, v in enumerate(pruned[i])]
        if step == "columns":
            weight, pruned, mask = transposed(weight, pruned, mask)
    return torch.tensor(pruned, dtype=torch.float64)


def compensated(steps):
    """Weight and mask of a half-pruned matrix, and what the compensation makes of it."""
    w, _, statistics = random_matrix()
    keep = Unstructured(0.5).select(w.abs())
    energy = Energy("columns" in steps, "rows" in steps, rows_first=len(steps) > 1 and steps[0] == "rows")
    return w, keep, *energy.apply(w, w * keep, keep, statistics)


@pytest.mark.parametrize("steps", STEPS)
def test_energy_compensation_is_the_papers_formula(steps):
    w, keep, result, _ = compensated(steps)
    assert torch.allclose(result, naive_energy(w.tolist(), (w * keep).tolist(), keep.tolist(), steps))


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
