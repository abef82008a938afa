"""SparseGPT's OBS solver (Frantar & Alistarh, ICML 2023): select and update, one column block at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.masks import Group, NofM, Pattern
from statprune.statistics import InputStatistics, StatisticsKind


@dataclass(frozen=True)
class SparseGPTOptions:
    """SparseGPT's parameters.

    Attributes:
        damping: added to the Hessian's diagonal, as a fraction of its mean.
        block_size: columns per lazy update; an unstructured mask is selected per such block.
    """

    damping: float = 0.01
    block_size: int = 128

    def __post_init__(self) -> None:
        if self.damping <= 0:
            raise ValueError(f"method.damping={self.damping} is not positive; SparseGPT's authors use 0.01")
        if self.block_size < 1:
            raise ValueError(f"method.block_size={self.block_size} is not a positive number of columns; give 128")


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Upper Cholesky factor of (G + λI)⁻¹, shape (in_features, in_features), and the damping that was needed.

    λ = damping · mean(diag G). Where the factorisation fails, damping is raised tenfold, up to 1e3. The factorisation
    is float64, whatever the Gram matrix is: nearly singular, it would lose in float32 what tells its columns apart.

    Raises:
        ValueError: the Gram matrix is not finite, or not even that damping makes it positive definite.
    """
    if not gram.isfinite().all():
        raise ValueError("the Gram matrix is not finite; the calibration inputs overflow")
    while damping <= 1e3:
        work = gram.to(torch.float64, copy=True)
        work.diagonal().add_(damping * work.diagonal().mean())
        work, info = torch.linalg.cholesky_ex(work)
        if info == 0:
            work, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(work), upper=True)
            if info == 0:
                return work.to(gram.dtype), damping
        damping *= 10
    raise ValueError("the Gram matrix is not positive definite even at damping 1e3")


@dataclass(frozen=True)
class SparseGPT:
    """SparseGPT as a method: selection and update interleave, so it implements ``solve`` itself."""

    options: SparseGPTOptions = SparseGPTOptions()
    needs: StatisticsKind = StatisticsKind.GRAM

    def solve(
        self, weight: Tensor, statistics: InputStatistics, pattern: Pattern
    ) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
        """Pruned and updated weight, keep mask, report; ``weight`` is (out_features, in_features).

        Raises:
            ValueError: an N:M group would cross a column block, or the Gram matrix can't be factorised.
        """
        if isinstance(pattern, NofM) and self.options.block_size % pattern.of:
            raise ValueError(f"method.block_size={self.options.block_size} is not divisible by M={pattern.of}")
        weight = weight.clone()
        gram = statistics.gram.to(weight.dtype).clone()
        dead = gram.diagonal() == 0
        gram.diagonal()[dead] = 1
        weight[:, dead] = 0
        factor, damping = inverse_factor(gram, self.options.damping)
        keep = torch.ones_like(weight, dtype=torch.bool)
        for first in range(0, weight.shape[1], self.options.block_size):
            last = min(first + self.options.block_size, weight.shape[1])
            part = pattern.columns(weight.shape[0], first, last)
            block_keep, errors = _solve_block(weight[:, first:last], factor[first:last, first:last], part)
            keep[:, first:last] = block_keep
            weight[:, last:] -= errors @ factor[first:last, last:]
        return weight * keep, keep, {"damping": damping, "dead_columns": float(dead.sum())}


def _solve_block(block: Tensor, factor: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Prune the columns of ``block`` in place, left to right; returns its keep mask and the scaled errors."""
    diagonal = factor.diagonal()
    errors = torch.zeros_like(block)
    if isinstance(pattern, NofM):
        keep = torch.ones_like(block, dtype=torch.bool)
    else:
        keep = pattern.select((block / diagonal).square())
    for column in range(block.shape[1]):
        if isinstance(pattern, NofM) and column % pattern.of == 0:
            group = slice(column, column + pattern.of)
            keep[:, group] = pattern.select((block[:, group] / diagonal[group]).square())
        pruned = block[:, column] * keep[:, column]
        errors[:, column] = (block[:, column] - pruned) / diagonal[column]
        block[:, column] = pruned
        block[:, column + 1 :] -= errors[:, column : column + 1] * factor[column, column + 1 :]
    return keep, errors


CUSTOMARY_GROUP = Group.matrix  # over the whole column block, as in the authors' code
