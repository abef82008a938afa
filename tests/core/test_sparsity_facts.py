"""Zeros, N:M patterns and changes of one matrix against loops over its entries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.patterns import NofM
from statprune.core.sparsity_facts import HeldPattern, change_facts, zero_facts


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
