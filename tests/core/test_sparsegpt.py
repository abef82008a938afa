"""SparseGPT's solver against the textbook's loop, and its factor against the definition."""

import pytest
import torch

from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.sparsegpt import inverse_factor
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.matrices import random_matrix

PATTERNS = [Unstructured(0.5, Group.matrix), Unstructured(0.5), NofM(2, 4)]
BLOCK = 8


def textbook(w, x, pattern):
    """Weight and mask; one column at a time on the full inverse Hessian, by Gaussian elimination, no lazy blocks."""
    columns = w.shape[1]
    hessian = x.T @ x
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.inv(hessian)
    wanted, keep = w.clone(), torch.ones_like(w, dtype=torch.bool)
    diagonals = []
    running = inverse.clone()
    for j in range(columns):
        diagonals.append(running[j, j].item())
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    d = torch.tensor(diagonals, dtype=torch.float64)
    running = inverse.clone()
    for j in range(columns):
        size = pattern.of if isinstance(pattern, NofM) else BLOCK
        if j % size == 0:
            part = slice(j, min(j + size, columns))
            keep[:, part] = pattern.select(wanted[:, part] ** 2 / d[part])
        error = wanted[:, j] * ~keep[:, j] / running[j, j]
        wanted = wanted - torch.outer(error, running[j])
        running = running - torch.outer(running[:, j], running[j]) / running[j, j]
    return wanted * keep, keep


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_mask_is_that_of_the_textbook_loop(pattern):
    w, x, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert torch.equal(solution.keep, textbook(w, x, pattern)[1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_weight_is_that_of_the_textbook_loop(pattern):
    w, x, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert torch.allclose(solution.weight, textbook(w, x, pattern)[0], atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_damping_of_a_good_gram_matrix_is_the_one_asked_for(pattern):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=BLOCK).solve(w, statistics, pattern)
    assert solution.diagnostics["damping"] == 0.01


def test_damping_is_raised_where_the_factorisation_fails_and_reported():
    statistics = InputStatistics(4, StatisticsKind.GRAM)
    statistics.update(torch.ones(3, 4))
    statistics.gram[0, 1] = statistics.gram[1, 0] = 3.4  # not positive definite at 1%
    solution = get_method("sparsegpt").solve(torch.randn(2, 4), statistics, NofM(2, 4))
    assert solution.diagnostics["damping"] > 0.01


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("group", Group)
def test_as_many_weights_are_removed_as_by_other_methods_whatever_the_blocks(ratio, block, group):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=block).solve(w, statistics, Unstructured(ratio, group))
    assert (~solution.keep).sum() == (~Unstructured(ratio, group).select(w.abs())).sum()


@pytest.mark.parametrize("block", [1, 5, 8])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.95])
def test_every_row_loses_as_many_weights_whatever_the_blocks(ratio, block):
    w, _, statistics = random_matrix(in_features=12)
    solution = get_method("sparsegpt", block_size=block).solve(w, statistics, Unstructured(ratio, Group.row))
    assert ((~solution.keep).sum(1) == int(ratio * 12 + 1e-9)).all()


def test_matrices_of_one_input_are_factorised_once(monkeypatch):
    weight, _, statistics = random_matrix(kind=StatisticsKind.GRAM)
    calls = []
    monkeypatch.setattr(
        "statprune.core.sparsegpt.inverse_factor",
        lambda gram, damping: calls.append(1) or inverse_factor(gram, damping),
    )
    first = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    second = get_method("sparsegpt").solve(weight, statistics, Unstructured(0.5))
    assert len(calls) == 1 and torch.equal(first.weight, second.weight)


def test_the_inverse_factor_is_that_of_the_definition():
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor, damping = inverse_factor(x.T @ x, 0.01)
    damped = x.T @ x + 0.01 * (x.T @ x).diagonal().mean() * torch.eye(9, dtype=torch.float64)
    assert damping == 0.01 and torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-10, atol=0)
