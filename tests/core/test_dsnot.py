"""DSnoT against a rewrite in plain loops, row by row in float64."""

import pytest
import torch

from statprune.core.dsnot import DSnoT
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.testing.cases import usual_case
from statprune.testing.refinements import check_refinement


def ordinary():
    case = usual_case(StatisticsKind.GRAM)
    return case.weight.double(), case.statistics


def naive_row(dense, weight, keep, statistics, cycles, threshold, span):
    """METHODS section 5 for one row; a swap that does not lower |r| ends it."""
    value, keep, returned = torch.where(keep, weight, dense), keep.clone(), ~keep
    sums, variance, norm = statistics.mean * 2048, statistics.variance, statistics.norm
    error = float(((dense - weight) * sums).sum())
    for _ in range(cycles):
        if abs(error) <= threshold:
            break
        sign = 1 if error > 0 else -1
        pruned = [j for j in range(len(dense)) if not keep[j] and returned[j] and sign * value[j] * sums[j] > 0]
        if not pruned:
            break
        v = max(pruned, key=lambda j: float(sign * value[j] * sums[j] / variance[j]))
        kept = [j for j in range(len(dense)) if keep[j]]
        in_group = [j for j in kept if j // span == v // span]
        against = [j for j in kept if sign * value[j] * sums[j] < 0]
        kept = in_group if span < len(dense) else against
        if not kept:
            break
        u = min(kept, key=lambda j: float(value[j].abs() * norm[j]))
        after = error + float(value[u] * sums[u]) - float(value[v] * sums[v])
        if abs(after) >= abs(error):
            break
        keep[u], keep[v], returned[v], error = False, True, False, after
    return keep, error


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.7, Group.matrix), NofM(2, 4)], ids=str)
def test_agrees_with_plain_loops(method, pattern):
    dense, statistics = ordinary()
    before = get_method(method).solve(dense, statistics, pattern)
    after = DSnoT().refine(dense, before, statistics, pattern)
    span = pattern.exchange_span(dense.shape[1])
    errors = []
    for row in range(len(dense)):
        keep, error = naive_row(dense[row], before.weight[row], before.keep[row], statistics, 50, 0.1, span)
        assert torch.equal(after.keep[row], keep)
        errors.append(abs(error))
    assert after.diagnostics["error_after"].item() == pytest.approx(sum(errors) / len(errors))
    assert after.diagnostics["error_after"] < after.diagnostics["error_before"]
    assert torch.equal(after.weight, torch.where(before.keep, before.weight, dense) * after.keep)


def test_keeps_the_rules_of_refinements():
    check_refinement(DSnoT(max_cycles=5), patterns=(Unstructured(0.5), NofM(2, 4)))


@pytest.mark.parametrize("options", [{"max_cycles": 0}, {"threshold": -0.1}, {"tokens": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=rf"refinement\.{next(iter(options))}="):
        DSnoT(**options)


def test_no_row_makes_more_swaps_than_there_are_cycles():
    dense, statistics = ordinary()
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    made = [
        (before.keep & ~DSnoT(max_cycles=most).refine(dense, before, statistics, Unstructured(0.5)).keep).sum(1)
        for most in (1, 2, 50)
    ]
    assert made[0].max() == 1
    assert made[1].max() == 2
    assert made[2].sum() > made[0].sum()


def test_the_threshold_is_for_so_many_tokens():
    dense, statistics = ordinary()
    before = get_method("wanda").solve(dense, statistics, Unstructured(0.5))
    few, many, scaled = (
        DSnoT(tokens=tokens, threshold=threshold).refine(dense, before, statistics, Unstructured(0.5)).keep
        for tokens, threshold in ((1, 0.5), (2048, 0.5), (2048, 1024.0))
    )
    assert torch.equal(few, scaled)
    assert not torch.equal(few, many)


def test_matrices_that_are_excluded_are_not_refined():
    refinement = DSnoT(exclude=("mlp", r"layers\.0\."))
    names = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.q_proj"]
    assert [refinement.refines(name) for name in names] == [False, False, True]
    assert all(DSnoT().refines(name) for name in names)
    assert refinement.problem_of_names(names) is None
    assert refinement.problem_of_names(names[2:]) == (
        r"refinement.exclude: mlp, layers\.0\. is found in no pruned matrix's name; names are like "
        "model.layers.1.self_attn.q_proj"
    )


@pytest.mark.parametrize(
    ("expressions", "sentence"), [(("(",), r"exclude: \( is no regular expression"), ("mlp", r"give \[mlp\]")]
)
def test_what_is_excluded_is_a_list_of_expressions(expressions, sentence):
    with pytest.raises(ValueError, match=sentence):
        DSnoT(exclude=expressions)
