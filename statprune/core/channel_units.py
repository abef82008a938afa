"""Weights in units that give their inputs' second moments a diagonal of ones, as ALPS and ADMM solve them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChannelUnits:
    """Lengths that inputs are divided by, and their weights multiplied.

    Attributes:
        lengths: above zero, (in_features,).
        is_dead: channels that are zero in every token, (in_features,), bool.
    """

    lengths: Tensor
    is_dead: Tensor

    def of(self, weight: Tensor, unit: Tensor) -> Tensor:
        """W̄_ij = W_ij ℓ_j / unit with the lengths ℓ, (out_features, in_features).

        Args:
            weight: of that shape.
            unit: ``largest_weight`` of it.
        """
        return (weight / unit).mul_(self.lengths)

    def restored(self, weight: Tensor, unit: Tensor, solved: Tensor, keep: Tensor) -> Tensor:
        """What was solved, in the units of the weight.

        Kept weights of rows that lose nothing, and of dead channels, are the dense ones, and not within rounding of
        them.

        Args:
            weight: the dense one, (out_features, in_features).
            unit: ``largest_weight`` of it.
            solved: in the units of ``of``, same shape; it is changed.
            keep: the mask, bool.
        """
        is_given = keep & (self.is_dead | keep.all(1, keepdim=True))
        return torch.where(is_given, weight, solved.div_(self.lengths).mul_(unit))


def largest_weight(weight: Tensor) -> Tensor:
    """The largest magnitude of a weight, a scalar; 1 where all are zero."""
    largest = weight.abs().max()
    return torch.where(largest > 0, largest, 1.0)
