"""Patterns' options and bounds, blocks of columns, and what is selected where a tensor is on a GPU."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from statprune.core.patterns import Group, NofM, Unstructured, round_down, smallest


class OnGpu(torch.Tensor):
    """Says that it is on a GPU, so that what runs there is run here."""

    is_cuda = True
    device = SimpleNamespace(type="cuda")


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    """What a GPU runs where no kernel can be built; tests/core/test_selection_triton.py has the kernels."""
    monkeypatch.setattr("statprune.core.patterns.has_kernel", lambda tensor: False)


def random_scores(rows, columns):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))


def test_the_defaults_are_the_documented_ones():
    defaults = {"ratio": 0.5, "group": Group.row, "exact": False, "is_column_block": False}
    assert asdict(Unstructured()) == defaults


@pytest.mark.parametrize("ratio", [True, "0.5", None])
def test_a_ratio_that_is_no_number_is_refused(ratio):
    with pytest.raises(ValueError, match="is no number"):
        Unstructured(ratio)


@pytest.mark.parametrize(("ratio", "is_block"), [(-0.5, False), (1, False), (1.5, False), (1.5, True), (-0.5, True)])
def test_a_ratio_out_of_range_is_refused(ratio, is_block):
    with pytest.raises(ValueError, match="outside"):
        Unstructured(ratio, is_column_block=is_block)


def test_a_block_of_columns_may_lose_all_weights():
    for exact in (False, True):
        pattern = Unstructured(1.0, exact=exact, is_column_block=True)
        assert not pattern.select(random_scores(3, 4)).any()
    assert Unstructured(0).select(random_scores(3, 4)).all()


def test_a_group_that_is_none_is_refused():
    with pytest.raises(ValueError, match="sparsity group 'row' is none"):
        Unstructured(0.5, "row")


def test_another_ratio_is_exact_and_of_the_same_groups():
    assert Unstructured(0.5, Group.matrix).at_ratio(0.25) == Unstructured(0.25, Group.matrix, exact=True)
    assert NofM(2, 4).at_ratio(0.25) is None


@pytest.mark.parametrize("group", Group)
def test_a_mask_has_the_shape_of_its_score(group):
    assert Unstructured(0.5, group).select(random_scores(3, 4)).shape == (3, 4)


@pytest.mark.parametrize(
    ("group", "exact", "rows"), [(Group.row, False, 1), (Group.row, True, 7), (Group.matrix, False, 7)]
)
@pytest.mark.parametrize(("ratio", "first", "last"), [(0.7, 0, 10), (0.35, 3, 8), (0.9, 8, 10), (0.0, 2, 5)])
def test_blocks_of_columns_lose_what_the_matrix_loses_up_to_them(group, exact, rows, ratio, first, last):
    block = Unstructured(ratio, group, exact).columns(7, first, last)
    percent = round(100 * ratio)
    lost = percent * rows * last // 100 - percent * rows * first // 100
    assert block.ratio * rows * (last - first) == pytest.approx(lost)
    assert (block.group, block.exact, block.is_column_block) == (group, exact, True)


def test_n_of_m_is_the_same_in_every_block():
    assert NofM(2, 4).columns(6, 4, 8) == NofM(2, 4)


@pytest.mark.parametrize(("keep", "of"), [(2.0, 4), (2, 4.0), ("2", "4"), (None, 4)])
def test_n_of_m_of_other_than_whole_numbers_is_refused(keep, of):
    with pytest.raises(ValueError, match="needs whole numbers"):
        NofM(keep, of)


@pytest.mark.parametrize("keep", [0, -1, 4])
def test_n_of_m_without_kept_or_removed_weights_is_refused(keep):
    with pytest.raises(ValueError, match="0 < N < M"):
        NofM(keep, 4)


def test_the_target_is_the_share_removed():
    assert NofM(1, 4).target == 0.75 and Unstructured(0.3).target == 0.3


@pytest.mark.parametrize(("size", "fits"), [(8, True), (4, True), (6, False), (3, False)])
def test_inputs_and_blocks_hold_whole_groups(size, fits):
    assert NofM(2, 4).problem(size) == (None if fits else f"{size} inputs are not divisible by M=4")
    sentence = f"{size} is not divisible by M=4; give a multiple of it"
    assert NofM(2, 4).crosses(size) == (None if fits else sentence)
    assert Unstructured().problem(size) is None and Unstructured().crosses(size) is None


@pytest.mark.parametrize(
    ("count", "rounded"),
    [
        (0.7 * 10, 7),
        (7.0, 7),
        (7 - 5e-10, 7),
        (7 - 1.5e-9, 6),
        (1e6 - 5e-7, 10**6),
        (1e6 - 1.5e-6, 10**6 - 1),
        (0.0, 0),
    ],
)
def test_a_count_a_hair_below_a_whole_number_is_that(count, rounded):
    assert round_down(count) == rounded


def lowest(score, count):
    """The mask of a score whose entries are all different."""
    return (score.argsort(1).argsort(1) < count).tolist()


@pytest.mark.parametrize("rows", [1, 15, 16, 17])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 150, 299, 300])
@pytest.mark.parametrize("kind", [torch.Tensor, OnGpu])
def test_the_lowest_of_long_rows_are_found(kind, rows, count):
    score = random_scores(20, 300)[:rows]
    mask = smallest(score.as_subclass(kind), count).as_subclass(torch.Tensor)
    assert mask.tolist() == lowest(score, count)


@pytest.mark.parametrize("rows", [3, 20])
def test_a_gpu_breaks_ties_as_a_cpu_does(rows):
    score = (random_scores(rows, 30) * 4).floor()
    for count in (1, 11, 29):
        on_gpu = smallest(score.as_subclass(OnGpu), count).as_subclass(torch.Tensor)
        assert torch.equal(on_gpu, smallest(score, count))


def test_nan_is_refused_in_any_row_and_not_looked_for_on_a_gpu():
    score = random_scores(3, 8)
    score[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        smallest(score, 2)
    others = smallest(score.as_subclass(OnGpu), 2).as_subclass(torch.Tensor)[[0, 2]]
    assert others.tolist() == lowest(score[[0, 2]], 2)
    nothing = torch.full((2, 4), torch.nan).as_subclass(OnGpu)
    assert not smallest(nothing, 2).as_subclass(torch.Tensor).any()


def test_infinities_of_both_signs_are_compared():
    score = torch.tensor([[torch.inf, -torch.inf, 1.0, 2.0]])
    assert smallest(score, 2).tolist() == [[False, True, True, False]]
