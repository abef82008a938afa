"""Zeros, N:M patterns and changes of one matrix against loops over its entries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.patterns import NofM
from statprune.core.sparsity_facts import (
    HeldPattern,
    change_facts,
    count_not_finite,
    no_change,
    shared_patterns,
    zero_facts,
)


def held(rows):
    """Patterns along rows of nested lists, by brute force."""
    found = []
    for of in (4, 8, 16, 32):
        if len(rows[0]) % of:
            continue
        groups = [row[first : first + of] for row in rows for first in range(0, len(row), of)]
        keep = max(sum(value != 0 for value in group) for group in groups)
        implied = any(of % m == 0 and n * of // m <= keep for n, m in found)
        if 0 < keep < of and not implied:
            found.append((keep, of))
    return tuple(HeldPattern(*own) for own in found)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 4, 6, 8, 32]), st.floats(0, 1), st.integers(0, 2**31))
def test_everything_is_counted_as_by_loops(rows, columns, share, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    weight[torch.rand(rows, columns, generator=generator) < share] = 0
    facts, values = zero_facts(weight), weight.tolist()
    columns_first = [list(column) for column in zip(*values, strict=True)]
    assert facts.weights == rows * columns
    assert facts.zeros == sum(value == 0 for row in values for value in row)
    assert facts.zero_rows == sum(all(value == 0 for value in row) for row in values)
    assert facts.zero_columns == sum(all(value == 0 for value in column) for column in columns_first)
    has_zeros = facts.zeros > 0
    assert facts.along_rows == (held(values) if has_zeros else ())
    assert facts.along_columns == (held(columns_first) if has_zeros else ())


@pytest.mark.parametrize(("keep", "of", "shown"), [(2, 4, ["2:4"]), (4, 8, ["4:8"]), (1, 4, ["1:4"])])
def test_the_tightest_pattern_is_told_and_a_broken_group_found(keep, of, shown):
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    weight *= NofM(keep, of).select(weight.abs())
    assert [str(pattern) for pattern in zero_facts(weight).along_rows] == shown
    assert shown[0] in [str(pattern) for pattern in zero_facts(weight.T).along_columns]
    zeros = (weight == 0).nonzero()
    weight[tuple(zeros[5])] = 1.0
    assert shown[0] not in [str(pattern) for pattern in zero_facts(weight).along_rows]


def test_an_empty_or_broken_matrix_is_counted():
    facts = zero_facts(torch.zeros(4, 8))
    assert (facts.zeros, facts.zero_rows, facts.zero_columns, facts.along_rows) == (32, 4, 8, ())
    assert zero_facts(torch.tensor([[math.nan, math.inf, 0.0, -0.0]])).not_finite == 2
    assert zero_facts(torch.tensor([[math.nan, math.inf, 0.0, -0.0]])).zeros == 2


def test_changes_are_counted_and_measured():
    dense = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]])
    weight = torch.tensor([[0.0, 2.5, 1.0], [3.0, 4.0, 0.0]])
    facts = change_facts(weight, dense)
    assert (facts.pruned, facts.refilled, facts.updated, facts.kept) == (1, 1, 1, 3)
    assert facts.relative_change == pytest.approx(math.sqrt((1 + 0.25 + 1) / 30))
    assert facts.relative_update == pytest.approx(0.5 / math.sqrt(4 + 9 + 16))
    assert change_facts(weight, torch.zeros(2, 3)).relative_change is None


def test_a_stack_is_counted_matrix_by_matrix():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 62, 64, generator=generator)
    for number, matrix in enumerate(weight):
        matrix[:, 8 * number : 8 * number + 8] = 0
    weight[1, 5] = 0
    whole, each = zero_facts(weight), [zero_facts(matrix) for matrix in weight]
    assert (whole.zero_rows, whole.zero_columns) == (1, 4 * 8)
    for name in ("weights", "zeros", "zero_rows", "zero_columns"):
        assert getattr(whole, name) == sum(getattr(own, name) for own in each)
    living = weight[weight.any(2)]
    assert whole.density_of_rows == pytest.approx(float((living != 0).float().mean()))


def test_groups_of_a_stack_do_not_reach_into_the_next_matrix():
    tall = torch.randn(64, 248, generator=torch.Generator().manual_seed(0))
    tall *= NofM(2, 4).select(tall.abs())
    straddling = tall.T.reshape(4, 62, 64)
    assert [str(own) for own in zero_facts(straddling.reshape(248, 64)).along_columns] == ["2:4"]
    assert zero_facts(straddling).along_columns == ()
    assert [str(own) for own in zero_facts(tall.T.reshape(2, 124, 64)).along_columns] == ["2:4"]


def test_kernels_of_a_convolution_are_rows_of_one_matrix():
    kernels = torch.ones(8, 1, 4)
    kernels[:, 0, 1] = 0
    facts = zero_facts(kernels)
    assert (facts.zero_rows, facts.zero_columns, [str(own) for own in facts.along_rows]) == (0, 1, ["3:4"])


def most(weight, of):
    return int((weight != 0).reshape(-1, of).sum(1).max())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([(1, 4), (2, 4), (3, 8), (4, 8), (6, 8), (9, 16)]), min_size=1, max_size=3), st.booleans()
)
def test_shared_patterns_are_the_tightest_that_every_matrix_holds(patterns, with_zero):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 32, generator=generator) for _ in patterns]
    weights = [weight * NofM(*own).select(weight.abs()) for weight, own in zip(weights, patterns, strict=True)]
    weights += [torch.zeros(5, 7)] if with_zero else []
    wanted = []
    for of in (4, 8, 16, 32):
        own = HeldPattern(max(most(weight, of) for weight in weights if weight.any()), of)
        if own.keep < of and not any(other.implies(own) for other in wanted):
            wanted.append(own)
    assert shared_patterns([zero_facts(weight) for weight in weights], "along_rows") == wanted


def test_a_matrix_without_a_pattern_leaves_none_to_share():
    pruned = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    assert shared_patterns([zero_facts(pruned), zero_facts(torch.ones(2, 4))], "along_rows") == []
    assert shared_patterns([zero_facts(torch.zeros(2, 4))], "along_rows") == []


def test_dead_rows_and_columns_do_not_thin_what_is_left():
    weight = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0] * 4, [0.0] * 4, [1.0, 0.0, 1.0, 0.0]])
    facts = zero_facts(weight)
    assert (facts.density_of_rows, facts.density_of_columns) == (0.5, 0.5)
    facts = zero_facts(weight[:, :3])
    assert (facts.density_of_rows, facts.density_of_columns) == (4 / 6, 4 / 8)
    assert zero_facts(torch.zeros(2, 2)).density_of_rows == 0


def test_a_matrix_that_is_its_original_keeps_all_it_has():
    weight = torch.tensor([[1.0, 0.0, 3.0]])
    assert no_change(zero_facts(weight)) == change_facts(weight, weight)
    assert no_change(zero_facts(torch.zeros(2, 2))).relative_change == 0


def test_infinity_is_found_in_eight_bits():
    values = torch.tensor([torch.inf, torch.nan, 1.0])
    assert count_not_finite(values.to(torch.float8_e5m2)) == 2 and count_not_finite(values.to(torch.float8_e4m3fn)) >= 1
