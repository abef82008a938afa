"""Exact swaps against brute force over all pairs, row by row in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.dsnot import DSnoT
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.solution import Solution
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.core.swaps import Swaps
from statprune.testing.cases import statistics_of
from statprune.testing.refinements import check_refinement

GRAM = StatisticsKind.GRAM
EXACT = {"max_swaps": 1000, "min_gain": 0.0}


def correlated(tokens, channels, seed=0, dtype=torch.float64):
    """Inputs with common directions, means and channels of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(tokens, channels, generator=generator, dtype=torch.float64)
    common = torch.randn(tokens, 3, generator=generator, dtype=torch.float64)
    inputs = inputs + common @ torch.randn(3, channels, generator=generator, dtype=torch.float64)
    inputs = (inputs + 0.5) * torch.linspace(0.3, 2, channels, dtype=torch.float64)
    weight = torch.randn(12, channels, generator=generator, dtype=torch.float64)
    return weight.to(dtype), statistics_of(inputs.to(dtype), GRAM)


def losses(dense, weight, gram):
    """eᵀGe of every row."""
    error = (dense - weight).double()
    return ((error @ gram.double()) * error).sum(1)


def best_change(dense, value, keep, gram, span):
    """The least change of a row's loss by any swap of a kept and a pruned weight, each tried."""
    weight = value * keep
    before, best = losses(dense[None], weight[None], gram), torch.inf
    for u in keep.nonzero()[:, 0].tolist():
        for v in (~keep).nonzero()[:, 0].tolist():
            if u // span == v // span:
                swapped = weight.clone()
                swapped[u], swapped[v] = 0, value[v]
                best = min(best, (losses(dense[None], swapped[None], gram) - before).item())
    return best


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize(
    "pattern",
    [Unstructured(0.5), Unstructured(0.3, exact=True), Unstructured(0.7, Group.matrix), NofM(2, 4), NofM(1, 8)],
    ids=["row", "exact", "matrix", "2:4", "1:8"],
)
def test_no_pair_is_left_and_no_loss_rises(method, pattern):
    dense, statistics = correlated(60, 24)
    before = get_method(method).solve(dense, statistics, pattern)
    after = Swaps(**EXACT, candidates=2).refine(dense, before, statistics, pattern)
    old, new = (losses(dense, solution.weight, statistics.gram) for solution in (before, after))
    assert (new <= old).all()
    assert new.sum() < old.sum()
    assert (after.keep.sum(1) == before.keep.sum(1)).all()
    assert after.diagnostics["rows_stopped"] == len(dense)
    span = pattern.exchange_span(24)
    value = torch.where(before.keep, before.weight, dense)
    assert torch.equal(after.weight, value * after.keep)
    for row in range(len(dense)):
        change = best_change(dense[row], value[row], after.keep[row], statistics.gram, span)
        assert change >= -1e-9 * old[row]


def test_kept_weights_keep_their_updates_and_restored_ones_are_dense():
    dense, statistics = correlated(60, 24)
    before = get_method("sparsegpt").solve(dense, statistics, Unstructured(0.5))
    after = Swaps().refine(dense, before, statistics, Unstructured(0.5))
    stayed = before.keep & after.keep
    assert torch.equal(after.weight[stayed], before.weight[stayed])
    assert torch.equal(after.weight[after.keep & ~before.keep], dense[after.keep & ~before.keep])
    assert not after.weight[~after.keep].any()


def steepest_swaps(dense, weight, keep, gram, count):
    """METHODS section 1: the most negative of all pairs, each time."""
    weight, keep = weight.clone(), keep.clone()
    for _ in range(count):
        kept, pruned = keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]
        c = gram @ (dense - weight)
        first = 2 * weight[kept] * c[kept] + weight[kept] ** 2 * gram.diagonal()[kept]
        second = -2 * dense[pruned] * c[pruned] + dense[pruned] ** 2 * gram.diagonal()[pruned]
        both = -2 * weight[kept][:, None] * dense[pruned] * gram[kept][:, pruned]
        change = first[:, None] + second + both
        if change.min() >= 0:
            break
        u, v = divmod(int(change.argmin()), len(pruned))
        weight[kept[u]], weight[pruned[v]] = 0, dense[pruned[v]]
        keep[kept[u]], keep[pruned[v]] = False, True
    return keep


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_one_swap_among_all_candidates_is_the_steepest(method):
    dense, statistics = correlated(60, 24)
    before = get_method(method).solve(dense, statistics, Unstructured(0.5))
    after = Swaps(max_swaps=1, candidates=24).refine(dense, before, statistics, Unstructured(0.5))
    for row in range(len(dense)):
        assert torch.equal(
            after.keep[row], steepest_swaps(dense[row], before.weight[row], before.keep[row], statistics.gram, 1)
        )
    assert after.diagnostics["swaps"] == (before.keep & ~after.keep).sum()


def test_ends_about_as_low_as_steepest_swaps():
    dense, statistics = correlated(60, 32)
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    after = Swaps().refine(dense, before, statistics, Unstructured(0.5))
    naive = torch.stack(
        [steepest_swaps(w, w * k, k, statistics.gram, 100) for w, k in zip(dense, before.keep, strict=True)]
    )
    ours, reference = (losses(dense, weight, statistics.gram).sum() for weight in (after.weight, dense * naive))
    assert ours < 1.1 * reference


def test_no_row_makes_more_swaps_than_it_may():
    dense, statistics = correlated(60, 24)
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    for most in (1, 3):
        after = Swaps(max_swaps=most).refine(dense, before, statistics, Unstructured(0.5))
        assert (before.keep & ~after.keep).sum(1).max() <= most
        assert after.diagnostics["swaps"] <= most * len(dense)
        assert after.diagnostics["rows_stopped"] < len(dense)


def test_losses_are_relative_to_the_dense_outputs():
    dense, statistics = correlated(60, 24)
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    after = Swaps().refine(dense, before, statistics, Unstructured(0.5))
    energy = losses(dense, torch.zeros_like(dense), statistics.gram).sum()
    for name, solution in {"loss_before": before, "loss_after": after}.items():
        expected = losses(dense, solution.weight, statistics.gram).sum() / energy
        assert after.diagnostics[name].item() == pytest.approx(expected.item())


def test_a_larger_least_gain_stops_earlier():
    dense, statistics = correlated(60, 24)
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    few, many = (
        Swaps(min_gain=gain).refine(dense, before, statistics, Unstructured(0.5)).diagnostics["swaps"]
        for gain in (0.05, 0)
    )
    assert 0 < few < many


@given(
    seed=st.integers(0, 10**6),
    channels=st.sampled_from([1, 2, 7, 16]),
    tokens=st.sampled_from([1, 3, 40]),
    ratio=st.sampled_from([0, 0.3, 0.5, 0.999]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    group=st.sampled_from(Group),
)
@settings(max_examples=25, deadline=None)
def test_no_loss_rises_whatever_the_inputs(seed, channels, tokens, ratio, dtype, group):
    dense, statistics = correlated(tokens, channels, seed, dtype)
    pattern = Unstructured(ratio, group)
    before = get_method("wanda").solve(dense, statistics, pattern)
    after = Swaps(max_swaps=20, candidates=3, min_gain=0.0).refine(dense, before, statistics, pattern)
    old, new = (losses(dense, solution.weight, statistics.gram) for solution in (before, after))
    assert (new <= old * (1 + 1e-12) + 1e-12).all()
    assert (after.keep.sum(1) == before.keep.sum(1)).all()
    assert torch.equal(after.weight, dense * after.keep)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_weights_near_the_ends_of_their_range(size):
    dense, statistics = correlated(60, 24, dtype=torch.float32)
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    usual = Swaps().refine(dense, before, statistics, Unstructured(0.5))
    scaled = Swaps().refine(
        dense * size, Solution(before.weight * size, before.keep, {}), statistics, Unstructured(0.5)
    )
    assert (usual.keep == scaled.keep).float().mean() > 0.98


def test_without_tokens_the_smallest_weights_are_pruned():
    dense = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    statistics = InputStatistics.uninformed(16, GRAM, "cpu")
    keep = Unstructured(0.5).select(torch.rand(8, 16, generator=torch.Generator().manual_seed(1)))
    after = Swaps().refine(dense, Solution(dense * keep, keep, {}), statistics, Unstructured(0.5))
    assert torch.equal(after.keep, Unstructured(0.5).select(dense.abs()))


def test_a_gram_matrix_that_is_not_finite_is_refused():
    dense, statistics = correlated(60, 24)
    statistics.gram[0, 0] = torch.inf
    keep = Unstructured(0.5).select(dense.abs())
    with pytest.raises(ValueError, match="the Gram matrix is not finite"):
        Swaps().refine(dense, Solution(dense * keep, keep, {}), statistics, Unstructured(0.5))


@pytest.mark.parametrize("options", [{"max_swaps": 0}, {"candidates": 0}, {"min_gain": -0.1}, {"min_gain": 1.0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=rf"refinement\.{next(iter(options))}="):
        Swaps(**options)


def test_keeps_the_rules_of_refinements():
    check_refinement(Swaps(max_swaps=10), patterns=(Unstructured(0.5), NofM(2, 4)))


class Silent(Pattern):
    """A pattern of somebody's own that says nothing of exchanges."""

    target = 0.5

    def select(self, score):
        return Unstructured(0.5).select(score)


@pytest.mark.parametrize("refinement", [Swaps(), DSnoT()], ids=["swaps", "dsnot"])
def test_a_pattern_that_does_not_say_where_weights_may_be_exchanged_is_refused(refinement):
    dense, statistics = correlated(60, 24)
    solution = get_method("wanda").solve(dense, statistics, Silent())
    assert "exchange_span" in refinement.problem(Silent())
    with pytest.raises(ValueError, match="the pattern Silent does not say where it may"):
        refinement.refine(dense, solution, statistics, Silent())
