"""SparseGPT's bounds: damping, squares that are lost, memory, and what a GPU's kernel is handed."""

from types import SimpleNamespace

import pytest
import torch

import statprune.core
from statprune.core import sparsegpt
from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.sparsegpt import inverse_factor
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.matrices import random_matrix

PATTERNS = [Unstructured(0.5, Group.matrix), NofM(2, 4)]


def test_damping_that_would_pass_a_thousand_is_not_tried():
    gram = torch.tensor([[1.0, 1000.0], [1000.0, 1.0]]).double()  # 1e3 is enough, 2e2 isn't
    with pytest.raises(ValueError, match="not positive definite"):
        inverse_factor(gram, 2.0)


def test_a_gram_matrix_whose_inverse_overflows_is_refused():
    gram = torch.tensor([[1e-310, 5e-311], [5e-311, 1e-310]]).double()
    with pytest.raises(ValueError, match="not positive definite"):
        inverse_factor(gram, 0.01)


def test_one_channel_whose_squares_vanish_is_refused():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    x[:, 2] *= 1e-30
    statistics = InputStatistics(8, StatisticsKind.GRAM)
    statistics.update(x)
    with pytest.raises(ValueError, match="so small that their squares vanish"):
        get_method("sparsegpt").solve(torch.ones(2, 8), statistics, NofM(2, 4))


RANGES = [
    ([-1e30, 1.0], [1.0, 1.0], False),
    ([1.0, 1.0], [1e-20, 1.0], False),
    ([1e25, 1.0], [1.0, 1.0], False),
    ([1e-20, 1e-20], [1.0, 1.0], False),
    ([1e-20, 1e-20], [1e-20, 1.0], False),
    ([1e-10, 1e-10], [1e10, 1e10], False),
    ([1e18, 1e-30], [1.0, 1.0], True),
    ([1e-18, 1e-18], [1.0, 1.0], True),
    ([0.0, 0.0], [1.0, 1.0], True),
]


@pytest.mark.parametrize(("weight", "diagonal", "is_taken"), RANGES)
def test_squares_must_not_overflow_nor_vanish(weight, diagonal, is_taken):
    weight, diagonal = torch.tensor([weight]), torch.tensor(diagonal)
    sparsegpt._check_range(weight.double(), diagonal.double())  # they are all within the range of float64
    if is_taken:
        sparsegpt._check_range(weight, diagonal)
        return
    with pytest.raises(ValueError, match="squares that SparseGPT compares are lost"):
        sparsegpt._check_range(weight, diagonal)


def test_on_a_gpu_the_range_is_not_looked_at():
    sparsegpt._check_range(SimpleNamespace(is_cuda=True), torch.ones(2))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_weight_and_mask_are_in_one_piece(pattern):
    w, _, statistics = random_matrix()
    solution = get_method("sparsegpt").solve(w, statistics, pattern)
    assert solution.weight.is_contiguous() and solution.keep.is_contiguous()


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that does what the loop does, and what it was handed."""
    handed = []
    loop = sparsegpt._solve_columns

    def solve_block(block, factor, keep, nofm):
        handed.append((block, factor, keep, nofm))
        with monkeypatch.context() as without:
            without.setattr(sparsegpt, "has_kernel", lambda tensor: False)
            return loop(block, factor, keep, nofm)

    fake = SimpleNamespace(solve_block=solve_block)
    monkeypatch.setattr(statprune.core, "sparsegpt_triton", fake, raising=False)
    return fake, handed


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_kernel_is_handed_blocks_of_a_copy(monkeypatch, kernel, pattern):
    w, _, statistics = random_matrix()
    given, method = w.clone(), get_method("sparsegpt", block_size=4)
    wanted = method.solve(w, statistics, pattern)
    monkeypatch.setattr(sparsegpt, "has_kernel", lambda tensor: True)
    solution = method.solve(w, statistics, pattern)
    assert torch.equal(w, given) and torch.equal(solution.keep, wanted.keep)
    assert torch.allclose(solution.weight, wanted.weight, rtol=1e-12)
    assert [block.stride() for block, *_ in kernel[1]] == [(8, 1)] * 2  # rows in one piece
