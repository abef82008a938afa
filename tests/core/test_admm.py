"""Gradual ADMM against a rewrite by columns, from all tokens and from sampled ones, and degenerate matrices."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core import admm
from statprune.core.admm import Admm
from statprune.core.least_squares import FittedTo
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.alternating import conjugate_gradients, correlated, largest, relative_loss

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4), NofM(4, 8), Unstructured(0.7)]
ROWS = FittedTo.rows


def sampled(inputs, index=None, dtype=torch.float64):
    """Statistics without a Gram matrix, with every row sampled or those of the index."""
    index = torch.arange(len(inputs)) if index is None else index
    statistics = InputStatistics(inputs.shape[1], StatisticsKind.MOMENTS, index, dtype=dtype)
    statistics.update(inputs)
    return statistics


def removing(pattern, share):
    """The pattern of a round, as METHODS has it: a share of what is removed at the end."""
    if isinstance(pattern, NofM):
        return NofM(pattern.of - max(1, round(share * (pattern.of - pattern.keep))), pattern.of)
    return Unstructured(share * pattern.ratio, pattern.group)


def by_the_paper(weight, length, system, pattern, rho=1.5, rounds=6, ramp=5, steps=4):
    """ADMM of a weight, step by step, with the damped system in units of the lengths."""
    w = weight.T * length[:, None]
    rho *= sum(1 / value for value in torch.linalg.inv(system).diagonal()) / len(system)
    inverse = torch.linalg.inv(system + rho * torch.eye(len(system), dtype=system.dtype))
    d, u = w, torch.zeros_like(w)
    for number in range(1, rounds + 1):
        b = inverse @ (system @ w + rho * (d - u))
        share = 1 - (1 - number / ramp) ** 3 if number < ramp else 1.0
        mask = largest(b + u, removing(pattern, share))
        d = (b + u) * mask
        u = u + b - d
    scale = system.diagonal().sqrt()  # the textbook's steps are those of a unit diagonal
    normal = system / scale[:, None] / scale[None, :]
    fitted = conjugate_gradients(normal, w * scale[:, None], mask, d * scale[:, None], steps)
    return (fitted / (scale * length)[:, None]).T, mask.T.bool()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("seed", [0, 3])
def test_it_is_the_papers_with_other_constants(pattern, seed):
    weight, inputs, statistics = correlated(5, 16, seed=seed)
    gram = inputs.T @ inputs
    length = gram.diagonal().sqrt()
    system = gram / length[:, None] / length + 16 / 50 * torch.eye(16, dtype=torch.float64)
    wanted, keep = by_the_paper(weight, length, system, pattern)
    solution = Admm().solve(weight, statistics, pattern)
    assert torch.equal(solution.keep, keep)
    assert torch.allclose(solution.weight, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("rounds", "ramp", "steps"), [(1, 1, 0), (2, 1, 3), (5, 5, 1), (20, 15, 2)])
def test_rounds_ramp_and_steps(rounds, ramp, steps):
    weight, inputs, statistics = correlated(5, 16)
    gram = inputs.T @ inputs
    length = gram.diagonal().sqrt()
    system = gram / length[:, None] / length + 0.1 * torch.eye(16, dtype=torch.float64)
    wanted, keep = by_the_paper(weight, length, system, PATTERNS[1], 1.0, rounds, ramp, steps)
    method = Admm(damping=0.1, rho=1.0, rounds=rounds, ramp=ramp, steps=steps)
    solution = method.solve(weight, statistics, PATTERNS[1])
    assert torch.equal(solution.keep, keep) and torch.allclose(solution.weight, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("tokens", [12, 50])
def test_sampled_rows_are_the_papers_with_their_moments(pattern, tokens):
    weight, inputs, _ = correlated(5, 16, tokens)
    fitted = inputs[torch.arange(tokens) % 4 != 3]
    length = inputs.square().sum(0).sqrt()
    scaled = fitted / (length / tokens**0.5)
    system = scaled.T @ scaled / len(fitted) + 16 / len(fitted) * torch.eye(16, dtype=torch.float64)
    wanted, keep = by_the_paper(weight, length, system, pattern)
    solution = Admm(ROWS).solve(weight, sampled(inputs), pattern)
    assert torch.equal(solution.keep, keep) and torch.allclose(solution.weight, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("tokens", "damping"), [(50, 0.16), (2000, 0.01)])
def test_damping_is_the_channels_per_token_and_has_a_least(tokens, damping):
    _, inputs, statistics = correlated(tokens=tokens)
    assert Admm()._system(statistics, torch.float64).damping == damping
    fitted = tokens - tokens // 4
    system = Admm(ROWS, samples=tokens)._system(sampled(inputs), torch.float64)
    assert system.damping == max(0.01, 8 / fitted)
    assert Admm(damping=0.2)._system(statistics, torch.float64).damping == 0.2


def test_rho_is_that_of_64_channels_where_there_are_more():
    _, inputs, statistics = correlated(3, 130, 300)
    gram = inputs.T @ inputs
    length = gram.diagonal().sqrt()
    unexplained = 1 / torch.linalg.inv(gram / length[:, None] / length + 130 / 300 * torch.eye(130)).diagonal()
    some = [130 * number // 64 for number in range(64)]
    system = Admm()._system(statistics, torch.float64)
    assert system.rho.item() == pytest.approx(1.5 * unexplained[some].mean().item())


def test_uncorrelated_channels_have_the_mask_of_their_scores():
    """ρ is above the least at which masks don't waver, so that nothing pruned grows larger than what is kept."""
    weight = correlated(24, 32)[0]
    statistics = InputStatistics(32, StatisticsKind.GRAM, dtype=torch.float64)
    statistics.update(torch.diag(torch.logspace(-1, 1, 32, dtype=torch.float64)))
    for pattern in PATTERNS:
        solution = Admm().solve(weight, statistics, pattern)
        assert torch.equal(solution.keep, pattern.select(weight.abs() * statistics.norm))
        assert torch.allclose(solution.weight, weight * solution.keep, rtol=1e-12)
        assert solution.diagnostics["support_change"] == 0


def test_the_first_mask_is_wandas():
    weight, _, statistics = correlated(24, 32, 400)
    for pattern in PATTERNS:
        found = Admm(rounds=1, ramp=1, steps=0).solve(weight, statistics, pattern)
        wanda = pattern.select(weight.abs() * statistics.norm)
        assert torch.equal(found.keep, wanda) and torch.allclose(found.weight, weight * wanda, rtol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_it_loses_less_than_sparsegpt_and_from_few_rows_less_than_wanda(pattern):
    weight, inputs, statistics = correlated(24, 32, 400)
    few = Admm(ROWS).solve(weight, sampled(inputs, torch.arange(0, 400, 8)), pattern)
    found = [few, *(get_method(name).solve(weight, statistics, pattern) for name in ("admm", "sparsegpt", "wanda"))]
    by_rows, by_gram, sparsegpt, wanda = (relative_loss(weight, own.weight, statistics) for own in found)
    assert by_gram < sparsegpt and by_gram < by_rows < wanda


def test_a_pattern_is_partly_taken():
    assert Unstructured(0.6, Group.matrix, exact=True).partial(0.5) == Unstructured(0.3, Group.matrix, exact=True)
    assert [NofM(2, 4).partial(share).keep for share in (0.1, 0.7, 0.8, 1)] == [3, 3, 2, 2]
    assert [NofM(4, 8).partial(share).keep for share in (0.1, 0.42, 0.7, 0.9, 1)] == [7, 6, 5, 4, 4]
    assert PATTERNS[0].partial(1) is PATTERNS[0]


class EveryOther(Pattern):
    """A plugin's, which has nothing between."""

    target = 0.5

    def select(self, score):
        return (torch.arange(score.shape[1]) % 2 == 0).expand(score.shape)


def test_a_pattern_that_has_nothing_between_is_taken_from_the_start():
    weight, _, statistics = correlated()
    solution = Admm().solve(weight, statistics, EveryOther())
    assert torch.equal(solution.keep, EveryOther().select(weight)) and solution.diagnostics["support_change"] == 0


def test_rows_that_are_not_fitted_to_are_what_the_report_measures_on():
    rows = torch.arange(40.0)[:, None]
    assert torch.equal(Admm(ROWS, samples=20).unseen(rows), rows[6::8])
    assert torch.equal(Admm().unseen(rows), rows) and torch.equal(get_method("wanda").unseen(rows), rows)
    assert [Admm().sampled_rows, Admm(ROWS).sampled_rows, Admm(ROWS, samples=8).sampled_rows] == [0, 1024, 8]


def test_other_rows_change_nothing():
    weight, inputs, _ = correlated(tokens=40)
    other = inputs.clone()
    other[3::4] = other[3::4].roll(1, 0)  # the moments of all tokens stay
    found = [Admm(ROWS).solve(weight, sampled(own), PATTERNS[1]).weight for own in (inputs, other)]
    assert torch.allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("method", [Admm(), Admm(ROWS)], ids=["gram", "rows"])
def test_what_matrices_share_is_computed_once(method, monkeypatch):
    weight, inputs, statistics = correlated()
    statistics = statistics if method.statistics is FittedTo.gram else sampled(inputs)
    method.solve(weight, statistics, PATTERNS[0])
    monkeypatch.setattr(admm.Admm, "_system", lambda *_: pytest.fail("it is known"))
    method.solve(2 * weight, statistics, PATTERNS[1])


@pytest.mark.parametrize("method", [Admm(), Admm(ROWS)], ids=["gram", "rows"])
def test_degenerate_matrices(method):
    weight, inputs, _ = correlated()
    inputs[:, [2, 5]] = 0

    def statistics(values):
        own = InputStatistics(8, StatisticsKind.GRAM, torch.arange(len(values)), dtype=torch.float64)
        own.update(values)
        return own

    for pattern in (Unstructured(0.0), Unstructured(0.0, Group.matrix)):
        assert torch.equal(method.solve(weight, statistics(inputs), pattern).weight, weight)
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


@pytest.mark.parametrize(("scale", "message"), [(1e-30, "squares vanish"), (1e30, "not finite")])
def test_inputs_whose_squares_are_lost_are_refused(scale, message):
    weight, inputs, _ = correlated()
    statistics = InputStatistics(8, StatisticsKind.GRAM)  # products in float32
    statistics.update(inputs * scale)
    with pytest.raises(ValueError, match=message):
        Admm().solve(weight, statistics, PATTERNS[0])
