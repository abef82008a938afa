"""SparseGPT's OBS solver (Frantar & Alistarh, ICML 2023): select and update, one column block at a time."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.column_major import column_major_copy
from statprune.core.finite import check_gram, dead_channels
from statprune.core.kernels import has_kernel
from statprune.core.methods import Method
from statprune.core.patterns import Group, NofM, Pattern
from statprune.core.solution import Diagnostics, Solution
from statprune.core.statistics import InputStatistics, StatisticsKind


@dataclass(frozen=True)
class InverseFactor:
    """What the column loop needs of a Gram matrix G.

    Attributes:
        upper: Cholesky factor U of (G + λI)⁻¹ = UᵀU, (in_features, in_features).
        damping: λ over the mean of G's diagonal.
        is_dead: channels that are zero in every token, (in_features,), bool.
    """

    upper: Tensor
    damping: float
    is_dead: Tensor


def inverse_factor(gram: Tensor, damping: float, is_dead: Tensor | None = None) -> tuple[Tensor, float]:
    """Upper Cholesky factor U of (G + λI)⁻¹ = UᵀU, (in_features, in_features), float64; and the damping it took.

    λ = damping · mean(diag G). Where a factorisation fails, damping is raised tenfold, up to 1e3. The factor is float64
    whatever the weights are: a nearly singular one would lose in float32 what tells its columns apart.

    Args:
        gram: G, symmetric, (in_features, in_features); it is not changed.
        damping: the share of the mean to begin with.
        is_dead: channels, (in_features,), bool, where 1 stands for G's diagonal; None: nowhere.

    Raises:
        ValueError: the Gram matrix is not finite, or not even the largest damping makes it positive definite.
    """
    check_gram(gram)
    factor = _flipped_factor if gram.is_cuda else _factor_of_inverse
    while damping <= 1e3:
        upper, info = factor(gram, damping, is_dead)
        if info == 0:
            return upper, damping
        damping *= 10
    raise ValueError("the Gram matrix is not positive definite even at damping 1e3")


def _factor_of_inverse(gram: Tensor, damping: float, is_dead: Tensor | None) -> tuple[Tensor, Tensor]:
    """U of (G + λI)⁻¹ = UᵀU, and 0 where it could be factorised. One matrix of memory: all three steps are in place."""
    work = _damped(column_major_copy(gram, torch.float64), damping, is_dead)
    info = torch.empty((), dtype=torch.int32, device=work.device)
    torch.linalg.cholesky_ex(work, out=(work, info))
    if info == 0:
        torch.cholesky_inverse(work, out=work)
        torch.linalg.cholesky_ex(work, upper=True, out=(work, info))
    return work, info


def _flipped_factor(gram: Tensor, damping: float, is_dead: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same with one factorisation: P (G + λI) P = LLᵀ, where P reverses the order of channels, and U = P L⁻¹ P.

    On an H200 it takes half the time of the way over the inverse. A CPU keeps that way: masks that were recorded with
    it would change where rounding alone tells two scores apart.
    """
    is_dead = None if is_dead is None else is_dead.flip(0)
    lower, info = torch.linalg.cholesky_ex(_damped(gram.flip(0, 1).to(torch.float64), damping, is_dead))
    identity = torch.eye(len(gram), dtype=lower.dtype, device=lower.device)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    del lower, identity  # each as large as the Gram matrix
    return inverse.flip(0, 1).contiguous(), info


def _damped(work: Tensor, damping: float, is_dead: Tensor | None) -> Tensor:
    """G + λI, in place."""
    diagonal = work.diagonal()
    if is_dead is not None:
        diagonal.masked_fill_(is_dead, 1)
    diagonal.add_(damping * diagonal.mean())
    return work


@dataclass(frozen=True)
class SparseGPT(Method):
    """SparseGPT: selecting weights and updating the others interleave (Frantar & Alistarh, ICML 2023).

    With (G + λI)⁻¹ = UᵀU and λ = damping · mean(diag G), columns are taken from left to right. A weight's score is
    (w_j / U_jj)²; one that is pruned changes every later weight of its row:

        w_k ← w_k − (w_j / U_jj) U_jk,   k > j.

    An unstructured mask is selected when a block of ``block_size`` columns begins, within the whole block; N:M when a
    group's first column is reached. Weights of channels that are zero in all inputs become zero, kept or not, and G has
    1 on the diagonal there, as in the authors' code.

    Deviations from that code: counts are exact (its threshold removes one more weight of each block, and all that equal
    it), and a factorisation that fails is tried again with ten times the damping.

    Attributes:
        damping: added to the Hessian's diagonal, as a share of its mean [fraction].
        block_size: size of a lazy update; an unstructured mask is selected per such block [columns].
    """

    damping: float = 0.01
    block_size: int = 128

    needs: ClassVar[StatisticsKind] = StatisticsKind.GRAM
    group: ClassVar[Group] = Group.matrix  # over the whole column block, as in the authors' code

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise ValueError(f"method.damping={self.damping} is not positive; SparseGPT's authors use 0.01")
        if self.block_size < 1:
            raise ValueError(f"method.block_size={self.block_size} is not a positive number of columns; give 128")

    def problem(self, pattern: Pattern) -> str | None:
        """A sentence where an N:M group would cross a column block."""
        crossing = pattern.crosses(self.block_size)
        return f"method.block_size={crossing}" if crossing else None

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Select and update one weight of shape (out_features, in_features).

        Diagnostics: the ``damping`` that the factorisation took, and the number of ``dead_columns``.

        Raises:
            ValueError: an N:M group would cross a column block, the Gram matrix can't be factorised, or weights or
                inputs are so large or small that their squares are lost (of the weights, on a GPU nothing is raised).
        """
        if problem := self.problem(pattern):
            raise ValueError(problem)
        # matrices with the same input share the factor
        key = ("inverse factor", weight.dtype, self.damping)
        factor = statistics.once(key, lambda: self._factor(statistics, weight.dtype))
        _check_range(weight, factor.upper.diagonal())
        # the loop works on columns, and wants each in one piece of memory; the kernel reads rows
        work = weight.clone() if has_kernel(weight) else weight.T.clone(memory_format=torch.contiguous_format).T
        work.masked_fill_(factor.is_dead, 0)
        keep = torch.ones_like(weight, dtype=torch.bool)
        for first in range(0, weight.shape[1], self.block_size):
            last = min(first + self.block_size, weight.shape[1])
            columns = pattern.columns(weight.shape[0], first, last)
            block_keep, errors = _solve_block(work[:, first:last], factor.upper[first:last, first:last], columns)
            keep[:, first:last] = block_keep
            work[:, last:].addmm_(errors, factor.upper[first:last, last:], alpha=-1)
        diagnostics: Diagnostics = {"damping": factor.damping, "dead_columns": factor.is_dead.sum()}
        return Solution((work * keep.to(weight.dtype)).contiguous(), keep, diagnostics)

    def _factor(self, statistics: InputStatistics, dtype: torch.dtype) -> InverseFactor:
        is_dead = dead_channels(statistics.gram, statistics, "method")
        upper, damping = inverse_factor(statistics.gram, self.damping, is_dead)
        return InverseFactor(upper.to(dtype), damping, is_dead)


def _check_range(weight: Tensor, diagonal: Tensor) -> None:
    """Raise ValueError where no score (w / u_jj)² tells weights apart: the largest overflows, or vanishes."""
    if weight.is_cuda:  # looking would wait for it
        return
    largest = weight.abs().max().double()
    limits = torch.finfo(weight.dtype)
    if (largest / diagonal.min()).square() > limits.max or 0 < (largest / diagonal.max()).square() < limits.tiny:
        raise ValueError(
            f"its largest weight is {largest.item():.3g}, and the squares that SparseGPT compares are lost there; "
            "choose another method"
        )


def _solve_block(block: Tensor, factor: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Prune the columns of ``block``, (out_features, columns), in place, left to right.

    Returns:
        Keep mask and scaled errors, both (out_features, columns).
    """
    if isinstance(pattern, NofM):
        return _solve_columns(block, factor, None, (pattern.keep, pattern.of))
    return _solve_columns(block, factor, pattern.select((block / factor.diagonal()).square_().contiguous()), None)


def _solve_columns(
    block: Tensor, factor: Tensor, keep: Tensor | None, nofm: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """As ``sparsegpt_triton.solve_block``, which takes one launch on a GPU; here it is a loop."""
    if has_kernel(block):
        from statprune.core import sparsegpt_triton

        return sparsegpt_triton.solve_block(block, factor, keep, nofm)
    columns, diagonal = block.T, factor.diagonal()
    errors = torch.empty_like(columns)
    keep = torch.ones_like(block, dtype=torch.bool) if keep is None else keep
    removed = (~keep).T.contiguous()
    for column in range(len(columns)):
        if nofm and column % nofm[1] == 0:
            group = slice(column, column + nofm[1])
            group_keep = NofM(*nofm).select_groups((columns[group] / diagonal[group, None]).square_())
            keep[:, group], removed[group] = group_keep.T, ~group_keep
        torch.mul(columns[column], removed[column], out=errors[column]).div_(diagonal[column])
        columns[column].masked_fill_(removed[column], 0)
        columns[column + 1 :].addr_(factor[column, column + 1 :], errors[column], alpha=-1)
    return keep, errors.T
