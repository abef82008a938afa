"""ALPS against a rewrite by columns, its schedule, and what it does with degenerate matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core import alps
from statprune.core.alps import Alps, _Schedule, _Verdict
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.alternating import conjugate_gradients, correlated, largest, relative_loss

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4), Unstructured(0.7, Group.matrix)]


def by_the_paper(weight, inputs, pattern, rounds=300, steps=10):
    """ALPS of a weight, step by step, with weights stored as (inputs, outputs); also the rounds taken and ρ."""
    gram = inputs.T @ inputs
    gram = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    length = gram.diagonal().sqrt()
    system = gram / length[:, None] / length[None, :]
    w = weight.T * length[:, None]
    rho, has_begun = 0.1, False
    first = largest(w, pattern)
    k = first.sum().item()
    d, v, seen = w * first, torch.zeros_like(w), first
    for number in range(1, rounds + 1):
        inverse = torch.linalg.inv(system + rho * torch.eye(len(system), dtype=system.dtype))
        b = inverse @ (system @ w - v + rho * d)
        mask = largest(b + v / rho, pattern)
        d = (b + v / rho) * mask
        v = v + rho * (b - d)
        if number % 3:
            continue
        change = (mask - seen).abs().sum().item() / k
        seen = mask
        if not has_begun and change <= 0.005:
            rho, d, v, seen = rho / 5, w * first, torch.zeros_like(w), first
            continue
        has_begun = True
        if change == 0 or (number > 30 and change < 0.0003):
            break
        rho *= 1.3 if change > 0.1 else 1.2 if change > 0.005 else 1.1
    return (conjugate_gradients(system, w, mask, d, steps) / length[:, None]).T, mask.T.bool(), number, rho


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("seed", [0, 3])
def test_it_is_the_papers(pattern, seed):
    weight, inputs, statistics = correlated(5, 12, seed=seed)
    wanted, keep, rounds, rho = by_the_paper(weight, inputs, pattern)
    solution = Alps().solve(weight, statistics, pattern)
    assert torch.equal(solution.keep, keep)
    assert torch.allclose(solution.weight, wanted, rtol=1e-6, atol=1e-9)
    assert solution.diagnostics["rounds"] == rounds and solution.diagnostics["rho"] == pytest.approx(rho)


@pytest.mark.parametrize(("rounds", "steps"), [(1, 0), (2, 1), (4, 3), (7, 10)])
def test_it_is_the_papers_where_it_is_cut_off(rounds, steps):
    weight, inputs, statistics = correlated(5, 12)
    wanted, keep, *_ = by_the_paper(weight, inputs, PATTERNS[0], rounds, steps)
    solution = Alps(rounds=rounds, steps=steps).solve(weight, statistics, PATTERNS[0])
    assert torch.equal(solution.keep, keep) and torch.allclose(solution.weight, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_it_loses_less_than_sparsegpt(pattern):
    weight, _, statistics = correlated(24, 32, 400)
    loss = [relative_loss(weight, get_method(n).solve(weight, statistics, pattern).weight, statistics) for n in NAMES]
    assert loss[0] < loss[1] < loss[2]


NAMES = ("alps", "sparsegpt", "wanda")


def test_single_precision_loses_no_more_than_double():
    weight, _, statistics = correlated(24, 32, 400)
    for pattern in PATTERNS:
        double, single = (Alps().solve(weight.to(dtype), statistics, pattern) for dtype in (weight.dtype, torch.float))
        assert single.weight.dtype == torch.float
        losses = [relative_loss(weight, found.weight.double(), statistics) for found in (double, single)]
        assert losses[1] == pytest.approx(losses[0], rel=0.02)


SCHEDULE = [
    (False, 0.2, 3, 0.13, _Verdict.go_on),
    (False, 0.05, 3, 0.12, _Verdict.go_on),
    (False, 0.005, 3, 0.02, _Verdict.start_again),
    (False, 0.0, 33, 0.02, _Verdict.start_again),
    (True, 0.1, 3, 0.12, _Verdict.go_on),
    (True, 0.005, 3, 0.11, _Verdict.go_on),
    (True, 0.0, 3, 0.1, _Verdict.end),
    (True, 0.0002, 30, 0.11, _Verdict.go_on),
    (True, 0.0002, 33, 0.1, _Verdict.end),
    (True, 0.0003, 33, 0.11, _Verdict.go_on),
]


@pytest.mark.parametrize(("has_begun", "change", "rounds", "rho", "verdict"), SCHEDULE)
def test_the_schedule_of_rho(has_begun, change, rounds, rho, verdict):
    schedule = _Schedule(0.1, 0.0003, has_begun)
    assert schedule.look(change, rounds) is verdict and schedule.rho == pytest.approx(rho)
    assert schedule.has_begun == (has_begun or verdict is _Verdict.go_on)


def test_rho_has_bounds():
    high, low = _Schedule(0.9e6, 0.0, True), _Schedule(4e-6, 0.0)
    assert high.look(0.2, 3) is _Verdict.go_on and high.rho == 1e6
    assert low.look(0.0, 3) is _Verdict.end


def test_without_tolerance_the_support_has_to_stand_still():
    assert _Schedule(0.1, 0.0, True).look(1e-9, 60) is _Verdict.go_on


def test_the_eigenvectors_are_computed_once(monkeypatch):
    weight, _, statistics = correlated()
    Alps().solve(weight, statistics, PATTERNS[0])
    monkeypatch.setattr(alps, "_normalised", lambda *_: pytest.fail("they are known"))
    Alps(rounds=2).solve(2 * weight, statistics, PATTERNS[1])


@pytest.mark.parametrize("pattern", [Unstructured(0.0), Unstructured(0.0, Group.matrix)], ids=str)
def test_where_nothing_is_pruned_the_weight_stays(pattern):
    weight, _, statistics = correlated()
    solution = Alps().solve(weight, statistics, pattern)
    assert torch.equal(solution.weight, weight) and solution.diagnostics["rounds"] == 24


def test_where_no_token_was_seen_the_kept_weights_are_the_dense_ones():
    """And nearly all of them the largest: what is about as large as the threshold may take another's place."""
    weight = correlated(24, 32)[0]
    for pattern in PATTERNS:
        solution = Alps().solve(weight, InputStatistics.uninformed(32, StatisticsKind.GRAM, "cpu"), pattern)
        assert (solution.keep == pattern.select(weight.abs())).double().mean() > 0.95
        assert torch.allclose(solution.weight, weight * solution.keep)


def test_kept_weights_of_dead_channels_are_the_dense_ones():
    weight, inputs, _ = correlated()
    inputs[:, [2, 5]] = 0
    statistics = InputStatistics(8, StatisticsKind.GRAM, dtype=torch.float64)
    statistics.update(inputs)
    solution = Alps().solve(weight, statistics, NofM(2, 4))
    dead = [2, 5]
    assert torch.equal(solution.weight[:, dead], (weight * solution.keep)[:, dead])
    assert solution.diagnostics["dead_columns"] == 2


def test_without_inputs_it_is_magnitude():
    weight = correlated()[0]
    statistics = InputStatistics(8, StatisticsKind.GRAM)
    statistics.update(torch.zeros(9, 8))
    solution = Alps().solve(weight, statistics, PATTERNS[0])
    assert torch.equal(solution.weight, weight * PATTERNS[0].select(weight.abs()))


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_the_units_of_weights_and_inputs_do_not_matter(scale):
    weight, inputs, statistics = correlated(dtype=torch.float32)
    scaled = InputStatistics(8, StatisticsKind.GRAM, dtype=torch.float64)
    scaled.update(inputs * scale)
    wanted = Alps().solve(weight, statistics, PATTERNS[0])
    found = Alps().solve(weight * scale, scaled, PATTERNS[0])
    assert torch.equal(found.keep, wanted.keep) and torch.equal(found.weight, wanted.weight * scale)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 3, 60]),
    pattern=st.sampled_from([*PATTERNS, Unstructured(0.999), Unstructured(0.999, Group.matrix)]),
)
def test_counts_are_exact_and_the_last_stage_never_costs(seed, tokens, pattern):
    weight, _, statistics = correlated(tokens=tokens, seed=seed)
    weight[1] = 0
    unfitted, fitted = (Alps(steps=steps, rounds=60).solve(weight, statistics, pattern) for steps in (0, 10))
    assert torch.equal(fitted.keep, unfitted.keep) and (fitted.weight[~fitted.keep] == 0).all()
    assert fitted.keep.sum() == pattern.select(weight.abs()).sum() and fitted.weight.isfinite().all()
    system = statistics.gram + 0.01 * statistics.gram.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    before, after = (((weight - own.weight) @ system * (weight - own.weight)).sum() for own in (unfitted, fitted))
    assert after <= before * (1 + 1e-9) + 1e-12


WRONG = [
    ("damping", 0.0, 1e-6),
    ("rho", 0.0, 1e-6),
    ("rho", 2e6, 1e6),
    ("rounds", 0, 1),
    ("tolerance", -0.1, 0.0),
    ("steps", -1, 0),
]


@pytest.mark.parametrize(("name", "wrong", "least"), WRONG)
def test_options_out_of_range_are_refused(name, wrong, least):
    with pytest.raises(ValueError, match=rf"method\.{name}="):
        get_method("alps", **{name: wrong})
    assert getattr(get_method("alps", **{name: least}), name) == least
