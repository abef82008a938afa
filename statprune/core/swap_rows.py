"""Rows of a matrix whose masks are being refined side by side, and exchanges of their kept and pruned weights."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass
class SwapRows:
    """Rows w with their pruned weights ŵ, the error e = w − ŵ and its loss eᵀGe.

    Exchanging weight j, that is pruning it where it is kept and restoring it where it is pruned, changes e_j by its
    ``change`` δ_j: +r_j or −r_j, with the value r_j that it has wherever it is kept, ŵ_j where the method kept it and
    w_j elsewhere. Exchanging several changes the loss by 2 (Ge)ᵀδ + δᵀGδ.

    Attributes:
        number: of each row in its matrix, (rows,).
        side: the mask, −∞ where a weight is kept and ∞ where it is pruned, (rows, in_features): the larger of a value
            and this, or and its opposite, is far cheaper than a choice by a mask of bools.
        change: δ, same shape.
        slope: 2 G e, same shape.
        least_gain: what a swap has to take from the row's loss, (rows,); infinite where the row is finished.
        made: swaps so far, (rows,).
    """

    number: Tensor
    side: Tensor
    change: Tensor
    slope: Tensor
    least_gain: Tensor
    made: Tensor

    def __len__(self) -> int:
        return len(self.number)

    @property
    def keep(self) -> Tensor:
        """The mask, (rows, in_features), bool."""
        return self.side < 0

    def own_changes(self, gram: Tensor) -> Tensor:
        """How the loss changes where one weight alone is exchanged: δ_j (2 (Ge)_j + δ_j G_jj), (rows, in_features)."""
        return torch.addcmul(self.slope, self.change, gram.diagonal()).mul_(self.change)

    def kept(self, values: Tensor) -> Tensor:
        """The values of kept weights, and infinity elsewhere."""
        return torch.maximum(values, self.side)

    def pruned(self, values: Tensor) -> Tensor:
        """The values of pruned weights, and infinity elsewhere."""
        return torch.maximum(values, -self.side)

    def take(self, index: Tensor) -> "SwapRows":
        """Copies of some of the rows."""
        return SwapRows(*(getattr(self, item.name).index_select(0, index) for item in fields(self)))

    def where(self, condition: Tensor) -> "SwapRows":
        """Copies of the rows where a condition holds, (rows,), bool."""
        return self.take(condition.nonzero()[:, 0])

    @classmethod
    def joined(cls, first: "SwapRows", second: "SwapRows") -> "SwapRows":
        """Copies of the rows of both."""
        return cls(*(torch.cat([getattr(first, item.name), getattr(second, item.name)]) for item in fields(cls)))

    def exchange(self, channels: Tensor, is_exchanged: Tensor, gram: Tensor) -> None:
        """Exchange some weights of every row, in place.

        Args:
            channels: of the weights, (rows, count); one that is exchanged may stand there again as one that is not.
            is_exchanged: bool, same shape; as many kept as pruned ones in every row.
            gram: G, (in_features, in_features).
        """
        place = is_exchanged.flatten().nonzero()[:, 0]
        if not len(place):
            return
        channel = channels.flatten().index_select(0, place)
        weight = place // channels.shape[1] * len(gram) + channel
        counts = is_exchanged.sum(1)
        change = self.change.view(-1).index_select(0, weight)
        starts = counts.cumsum(0) - counts
        self.slope += embedding_bag(channel, gram, starts, mode="sum", per_sample_weights=2 * change)
        self.change.view(-1).index_copy_(0, weight, -change)
        self.side.view(-1).index_copy_(0, weight, -self.side.view(-1).index_select(0, weight))
        self.made += counts // 2


def pair_products(gram: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """G at every pair of two lists of channels, (rows, first, second), of shapes (rows, first) and (rows, second)."""
    entry = (first * len(gram))[:, :, None] + second[:, None, :]
    return gram.view(-1).index_select(0, entry.view(-1)).view(entry.shape)
