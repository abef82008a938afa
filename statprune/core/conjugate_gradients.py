"""Least squares on a fixed mask: conjugate gradients for all rows of a matrix at once (ALPS' last stage)."""

from dataclasses import dataclass

import torch
from torch import Tensor

# entries of a weight that are solved together: a few copies of them are held, and G is read once for all of them
CHUNK_ENTRIES = {"cpu": 2**24, "cuda": 2**26}
WORKING_COPIES = 12  # arrays of a matrix's size, float32, that a matrix of one chunk takes


@dataclass(frozen=True)
class SecondMoments:
    """G = XᵀX of a matrix's inputs X: the whole matrix, or the rows X alone.

    Attributes:
        diagonal: of G, (in_features,).
        gram: G, (in_features, in_features), or None.
        rows: X, (samples, in_features), in place of G: they are multiplied one after the other.
    """

    diagonal: Tensor
    gram: Tensor | None = None
    rows: Tensor | None = None

    def in_units(self) -> "SecondMoments":
        """The same in units of the mean diagonal; as it is where all inputs are zero."""
        unit = self.diagonal.mean()
        unit = torch.where(unit > 0, unit, 1.0)
        gram = None if self.gram is None else self.gram / unit
        rows = None if self.rows is None else self.rows / unit.sqrt()
        return SecondMoments(self.diagonal / unit, gram, rows)

    def to(self, dtype: torch.dtype) -> "SecondMoments":
        """The same in another precision."""
        gram = None if self.gram is None else self.gram.to(dtype)
        rows = None if self.rows is None else self.rows.to(dtype)
        return SecondMoments(self.diagonal.to(dtype), gram, rows)

    def product(self, weight: Tensor, damping: Tensor) -> Tensor:
        """V (G + λI) of V, (rows, in_features); λ is a scalar."""
        if self.rows is not None:
            product = weight @ self.rows.T @ self.rows
        else:
            assert self.gram is not None
            product = weight @ self.gram
        return product.addcmul_(weight, damping)


def fit_kept_weights(
    dense: Tensor, start: Tensor, keep: Tensor, moments: SecondMoments, damping: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Kept weights nearer to those whose outputs are nearest to the dense weight's.

    Row by row, with the dense row w and the support S of its kept weights, it minimises

        (w − v)ᵀ (G + λI) (w − v)   over v with v = 0 outside of S, that is ((G + λI) v)_S = ((G + λI) w)_S,

    by conjugate gradients with the diagonal of G + λI as preconditioner. They are masked in every step, so that a step
    is one product, V (G + λI). Each step lowers that loss; as many as S has members reach its minimum, but for
    rounding. λ draws the kept weights towards the dense ones, not towards zero. This is the last stage of ALPS (Meng
    et al., NeurIPS 2024, arXiv 2406.07831).

    Args:
        dense: W, (out_features, in_features).
        start: of the same shape; zero where ``keep`` is False.
        keep: what may change and need not be zero, bool.
        moments: G.
        damping: λ, a positive scalar; a share of G's mean diagonal where G is in units of that.
        steps: how many.

    Returns:
        The weight, and how much is left of the gradient: Σ rᵀ diag(G + λI)⁻¹ r over all rows, with r the gradient's
        kept part, at the start and at the end, (2,).
    """
    weight, left = start.clone(), dense.new_zeros(2)
    rows_together = max(1, CHUNK_ENTRIES.get(dense.device.type, 2**26) // dense.shape[1])
    for first in range(0, len(dense), rows_together):
        rows = slice(first, first + rows_together)
        left += _descend(weight[rows], dense[rows] - start[rows], keep[rows], moments, damping, steps)
    return weight, left


def share_left(left: Tensor) -> Tensor:
    """The gradient's norm after the steps over that before, a scalar; 0 where there was none.

    Args:
        left: that ``fit_kept_weights`` returned.
    """
    return _ratio(left[1], left[0]).sqrt()


def _descend(
    weight: Tensor, missing: Tensor, keep: Tensor, moments: SecondMoments, damping: Tensor, steps: int
) -> Tensor:
    """Take the steps on some rows of the weight, in place; what is left of the gradient before and after.

    Args:
        weight: V, zero where ``keep`` is False.
        missing: W − V.
        keep: of these rows.
        moments: G.
        damping: λ.
        steps: how many.
    """
    inverse = 1 / (moments.diagonal + damping)
    is_kept = keep.to(weight.dtype)  # once: a product with booleans takes three times as long
    residual = moments.product(missing, damping).mul_(is_kept)
    direction = residual * inverse
    before = energy = (residual * direction).sum(1, keepdim=True)
    for _ in range(steps):
        product = moments.product(direction, damping).mul_(is_kept)
        length = _ratio(energy, (product * direction).sum(1, keepdim=True))
        weight.addcmul_(direction, length)
        residual.addcmul_(product, length, value=-1)
        scaled, last = residual * inverse, energy
        energy = (residual * scaled).sum(1, keepdim=True)
        direction.mul_(_ratio(energy, last)).add_(scaled)
    return torch.stack([before.sum(), energy.sum()])


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their ratio; 0 where nothing is left to divide by, as in a row that has come to its minimum or keeps nothing."""
    return torch.where(below > 0, above / below, 0.0)
