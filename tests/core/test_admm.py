"""Gradual ADMM against a rewrite by columns, from all tokens and from sampled ones."""

import pytest
import torch

from statprune.core import admm
from statprune.core.admm import Admm
from statprune.core.least_squares import FittedTo
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.alternating import conjugate_gradients, correlated, largest, relative_loss, sampled

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4), NofM(4, 8), Unstructured(0.7)]
ROWS = FittedTo.rows


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


def damped(inputs, damping):
    """The inputs' lengths, and their damped second moments in units of these."""
    gram = inputs.T @ inputs
    length = gram.diagonal().sqrt()
    return length, gram / length[:, None] / length + damping * torch.eye(len(gram), dtype=gram.dtype)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("seed", [0, 3])
def test_it_is_the_papers_with_other_constants(pattern, seed):
    weight, inputs, statistics = correlated(5, 16, seed=seed)
    length, system = damped(inputs, 16 / 50)
    wanted, keep = by_the_paper(weight, length, system, pattern)
    solution = Admm().solve(weight, statistics, pattern)
    assert torch.equal(solution.keep, keep)
    assert torch.allclose(solution.weight, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("rounds", "ramp", "steps"), [(1, 1, 0), (2, 1, 3), (5, 5, 1), (20, 15, 2)])
def test_rounds_ramp_and_steps(rounds, ramp, steps):
    weight, inputs, statistics = correlated(5, 16)
    length, system = damped(inputs, 0.1)
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
    length, system = damped(inputs, 130 / 300)
    unexplained = 1 / torch.linalg.inv(system).diagonal()
    some = [130 * number // 64 for number in range(64)]
    system = Admm()._system(statistics, torch.float64)
    assert system.rho.item() == pytest.approx(1.5 * unexplained[some].mean().item())
    fitted = inputs[torch.arange(300) % 4 != 3] / (length / 300**0.5)
    unexplained = 1 / torch.linalg.inv(fitted.T @ fitted / 225 + 130 / 225 * torch.eye(130)).diagonal()
    system = Admm(ROWS)._system(sampled(inputs), torch.float64)
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


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_its_report_tells_of_the_last_round_and_of_the_last_stage(pattern):
    weight, inputs, statistics = correlated(5, 16)
    method, unfitted = (Admm(rounds=5, ramp=5, steps=steps) for steps in (2, 0))
    masks = []

    class Watched(type(pattern)):
        def partial(self, share):
            return Watched(**vars(pattern.partial(share)))

        def select(self, score):
            masks.append(super().select(score))
            return masks[-1]

    solution = method.solve(weight, statistics, Watched(**vars(pattern)))
    assert len(masks) == 5 and torch.equal(masks[-1], solution.keep)
    change = (masks[-1] != masks[-2]).sum() / solution.keep.sum()
    assert solution.diagnostics["support_change"] == change
    length, system = damped(inputs, 16 / 50)

    def gradient(solved):
        missing = (weight - solved.weight) * length
        return (missing @ system * solution.keep).norm()  # the diagonal of the system is the same everywhere

    wanted = gradient(solution) / gradient(unfitted.solve(weight, statistics, pattern))
    assert solution.diagnostics["fit_residual"] == pytest.approx(wanted.item())


def test_no_more_rows_are_fitted_to_than_are_asked_for():
    weight, inputs, _ = correlated(tokens=64)
    few = Admm(ROWS, samples=16).solve(weight, sampled(inputs), PATTERNS[1])
    some = sampled(inputs, torch.arange(0, 64, 4))
    assert torch.equal(few.weight, Admm(ROWS).solve(weight, some, PATTERNS[1]).weight)


def test_what_matrices_share_has_the_precision_of_their_weights():
    _, inputs, statistics = correlated()
    for method, known in ((Admm(), statistics), (Admm(ROWS), sampled(inputs, dtype=torch.float32))):
        system = method._system(known, torch.float32)
        assert {part.dtype for part in (system.units.lengths, system.rho, system.inverse)} == {torch.float32}
        exact = method._system(known, torch.float64)
        assert torch.equal(system.inverse, exact.inverse.to(torch.float32)) and exact.inverse.dtype == torch.float64


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
    assert Admm().needs is StatisticsKind.GRAM and Admm(ROWS).needs is StatisticsKind.MOMENTS
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
