"""Gradual ADMM with degenerate matrices, units, precisions and options out of range."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.admm import Admm
from statprune.core.least_squares import FittedTo
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.alternating import correlated, relative_loss, sampled

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4), NofM(4, 8), Unstructured(0.7)]
ROWS = FittedTo.rows


def test_a_row_that_loses_nothing_stays():
    weight, _, statistics = correlated()
    weight[2] *= 1e6
    solution = Admm().solve(weight, statistics, Unstructured(0.5, Group.matrix))
    assert solution.keep[2].all() and torch.equal(solution.weight[2], weight[2]) and not solution.keep.all()


def test_of_dead_channels_the_largest_weights_stay():
    weight, inputs, _ = correlated()
    inputs[:, :6] = 0
    gram = InputStatistics(8, StatisticsKind.GRAM, dtype=torch.float64)
    gram.update(inputs)
    for method, known in ((Admm(), gram), (Admm(ROWS), sampled(inputs))):
        solution = method.solve(weight, known, Unstructured(0.5))
        wanted = Unstructured(0.5).select(torch.cat([weight[:, :6].abs(), torch.full((6, 2), 100.0)], 1))
        assert torch.equal(solution.keep, wanted)
        assert torch.equal(solution.weight[:, :6], (weight * wanted)[:, :6])


@pytest.mark.parametrize("method", [Admm(), Admm(ROWS)], ids=["gram", "rows"])
def test_degenerate_matrices(method):
    weight, inputs, _ = correlated()
    inputs[:, [2, 5]] = 0

    def statistics(values):
        own = InputStatistics(8, StatisticsKind.GRAM, torch.arange(len(values)), dtype=torch.float64)
        own.update(values)
        return own

    for pattern in (Unstructured(0.0), Unstructured(0.0, Group.matrix)):
        solution = method.solve(weight, statistics(inputs), pattern)
        assert torch.equal(solution.weight, weight) and solution.diagnostics["fit_residual"] == 0
    nothing = method.solve(weight * 0, statistics(inputs), Unstructured(0.5))
    assert (nothing.weight == 0).all() and nothing.diagnostics["fit_residual"] == 0
    solution = method.solve(weight, statistics(inputs), Unstructured(0.5))
    assert solution.diagnostics["dead_columns"] == 2 and not solution.keep[:, [2, 5]].any()
    solution = method.solve(weight, statistics(inputs), Unstructured(0.1))  # floor(0.1 · 8) = 0
    assert torch.equal(solution.weight, weight)
    solution = method.solve(weight, statistics(inputs), Unstructured(0.2))
    dead = solution.keep[:, [2, 5]]
    assert dead.sum() == 6 and torch.equal(solution.weight[:, [2, 5]], weight[:, [2, 5]] * dead)
    for empty in (statistics(inputs * 0), InputStatistics.uninformed(8, StatisticsKind.GRAM, "cpu")):
        for pattern in PATTERNS:
            solution = method.solve(weight, empty, pattern)
            wanted = weight * pattern.select(weight.abs())
            assert torch.allclose(solution.weight, wanted, rtol=1e-9)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
@pytest.mark.parametrize("method", [Admm(), Admm(ROWS)], ids=["gram", "rows"])
def test_the_units_of_weights_and_inputs_do_not_matter(scale, method):
    weight, inputs, _ = correlated(dtype=torch.float32)
    found = []
    for factor in (1.0, scale):
        statistics = InputStatistics(8, StatisticsKind.GRAM, torch.arange(50), dtype=torch.float64)
        statistics.update(inputs * factor)
        found.append(method.solve(weight * factor, statistics, PATTERNS[1]))
    assert torch.equal(found[0].keep, found[1].keep) and torch.equal(found[0].weight * scale, found[1].weight)


def test_single_precision_loses_no_more_than_double():
    weight, inputs, statistics = correlated(24, 32, 400)
    for method, known in ((Admm(), statistics), (Admm(ROWS), sampled(inputs))):
        for pattern in PATTERNS:
            double, single = (method.solve(weight.to(dtype), known, pattern) for dtype in (weight.dtype, torch.float))
            assert single.weight.dtype == torch.float
            losses = [relative_loss(weight, found.weight.double(), statistics) for found in (double, single)]
            assert losses[1] == pytest.approx(losses[0], rel=0.02)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 3, 60]),
    pattern=st.sampled_from([*PATTERNS, Unstructured(0.999), Unstructured(0.999, Group.matrix)]),
    from_rows=st.booleans(),
)
def test_counts_are_exact_and_the_last_stage_never_costs(seed, tokens, pattern, from_rows):
    weight, inputs, statistics = correlated(tokens=tokens, seed=seed)
    statistics = sampled(inputs) if from_rows else statistics
    weight[1] = 0
    source = ROWS if from_rows else FittedTo.gram
    unfitted, fitted = (Admm(source, steps=steps).solve(weight, statistics, pattern) for steps in (0, 10))
    assert torch.equal(fitted.keep, unfitted.keep) and (fitted.weight[~fitted.keep] == 0).all()
    assert fitted.keep.sum() == pattern.select(weight.abs()).sum() and fitted.weight.isfinite().all()
    assert 0 <= fitted.diagnostics["support_change"] <= 2 and fitted.diagnostics["fit_residual"] <= 1 + 1e-9
    if not from_rows:
        system = statistics.gram + 8 / tokens * statistics.gram.diagonal().diag()
        losses = [((weight - own.weight) @ system * (weight - own.weight)).sum() for own in (unfitted, fitted)]
        assert losses[1] <= losses[0] * (1 + 1e-9) + 1e-12


WRONG = [
    ("damping", {"damping": 0.0}, {"damping": 1e-6}),
    ("damping", {"damping": math.inf}, {"damping": 1e6}),
    ("rho", {"rho": 0.0}, {"rho": 1e-6}),
    ("ramp", {"ramp": 0}, {"ramp": 1}),
    ("ramp", {"rounds": 4}, {"rounds": 5}),
    ("steps", {"steps": -1}, {"steps": 0}),
    ("samples", {"samples": 0, "statistics": ROWS}, {"samples": 1, "statistics": ROWS}),
    ("samples", {"samples": 512}, {"samples": 512, "statistics": ROWS}),
]


@pytest.mark.parametrize(("name", "wrong", "least"), WRONG)
def test_options_out_of_range_are_refused(name, wrong, least):
    with pytest.raises(ValueError, match=rf"method\.{name}="):
        get_method("admm", **wrong)
    get_method("admm", **least)
