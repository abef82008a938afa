"""Masks against naive selections written out here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.patterns import Group, NofM, Unstructured

RATIOS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9])


def naive_keep_spread(groups, remove):
    """Equal scores at the threshold are removed evenly spaced: the i-th of n where i·wanted/n passes an integer."""
    keep = []
    for row in groups:
        threshold = sorted(row)[remove - 1] if remove else -math.inf
        ties = [j for j in range(len(row)) if row[j] == threshold]
        wanted = remove - sum(value < threshold for value in row)
        spread = {j for i, j in enumerate(ties) if (i + 1) * wanted // len(ties) > i * wanted // len(ties)}
        keep.append([row[j] >= threshold and j not in spread for j in range(len(row))])
    return keep


def naive_keep_first(groups, remove):
    """Of equal scores the first stays."""
    keep = []
    for row in groups:
        removed = sorted(range(len(row)), key=lambda j: (row[j], -j))[:remove]
        keep.append([j not in removed for j in range(len(row))])
    return keep


@st.composite
def tied_scores(draw, m):
    """A matrix of few different scores, its rows a multiple of m long."""
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(0, 4), min_size=rows * groups * m, max_size=rows * groups * m))
    return torch.tensor(values, dtype=torch.float32).view(rows, groups * m)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_n_of_m_keeps_the_highest_scores_of_each_group_and_the_first_of_equal_ones(data):
    m = data.draw(st.integers(2, 8))
    n = data.draw(st.integers(1, m - 1))
    score = data.draw(tied_scores(m))
    mask = NofM(n, m).select(score)
    assert mask.view(-1, m).tolist() == naive_keep_first(score.view(-1, m).tolist(), m - n)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8).flatmap(tied_scores), RATIOS)
def test_each_row_loses_its_lowest_scores_and_evenly_spaced_ones_of_equal(score, ratio):
    remove = round(ratio * 10) * score.shape[1] // 10
    assert Unstructured(ratio).select(score).tolist() == naive_keep_spread(score.tolist(), remove)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8).flatmap(tied_scores), RATIOS)
def test_a_whole_matrix_loses_its_lowest_scores_and_evenly_spaced_ones_of_equal(score, ratio):
    remove = round(ratio * 10) * score.numel() // 10
    flat = Unstructured(ratio, Group.matrix).select(score).view(1, -1)
    assert flat.tolist() == naive_keep_spread(score.view(1, -1).tolist(), remove)


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (4, 8), (1, 4), (3, 5)])
def test_a_group_is_selected_as_n_of_m_selects_it(keep, of):
    score = torch.randint(0, 4, (50, of), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(NofM(keep, of).select_groups(score.T).T, NofM(keep, of).select(score))


EXACT_CASES = (st.integers(1, 7), st.integers(1, 9), st.floats(0, 0.99), st.integers(0, 5))


def exact_selection(rows, columns, ratio, seed):
    """Random scores, and the mask of an exact ratio by rows."""
    score = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    return score, Unstructured(ratio, Group.row, exact=True).select(score)


@settings(max_examples=60, deadline=None)
@given(*EXACT_CASES)
def test_an_exact_ratio_removes_a_whole_number_of_the_matrix(rows, columns, ratio, seed):
    _, keep = exact_selection(rows, columns, ratio, seed)
    assert int((~keep).sum()) == int(ratio * rows * columns + 1e-9)


@settings(max_examples=60, deadline=None)
@given(*EXACT_CASES)
def test_an_exact_ratio_is_spread_evenly_over_the_rows(rows, columns, ratio, seed):
    _, keep = exact_selection(rows, columns, ratio, seed)
    removed = (~keep).sum(1).tolist()
    assert max(removed) - min(removed) <= 1


@settings(max_examples=60, deadline=None)
@given(*EXACT_CASES)
def test_an_exact_ratio_removes_the_lowest_scores_of_each_row(rows, columns, ratio, seed):
    for row, mask in zip(*exact_selection(rows, columns, ratio, seed), strict=True):
        assert max([0.0, *row[~mask].tolist()]) <= min([1.0, *row[mask].tolist()])


@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.5, Group.matrix), NofM(1, 2)])
def test_a_score_that_holds_nan_is_refused(pattern):
    with pytest.raises(ValueError, match="NaN"):
        pattern.select(torch.tensor([[1.0, float("nan")]]))


def test_a_ratio_of_everything_is_refused():
    with pytest.raises(ValueError, match="outside"):
        Unstructured(1.0)


def test_n_of_m_that_removes_nothing_is_refused():
    with pytest.raises(ValueError, match="0 < N < M"):
        NofM(4, 4)


def test_n_of_m_names_inputs_that_its_groups_do_not_divide():
    assert "not divisible" in NofM(2, 4).problem(6)
