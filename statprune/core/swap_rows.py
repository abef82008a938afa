"""Rows of a matrix whose masks are being refined side by side, and exchanges of their kept and pruned weights."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass
class SwapRows:
    """Rows w with their pruned weights ŵ, the error e = w − ŵ and its loss eᵀGe.

    Exchanging weight j, that is pruning it where it is kept and restoring it where it is pruned, changes e_j by its
    ``change`` δ_j: +r_j or −r_j, with the value r_j that it has wherever it is kept. Exchanging several changes the
    loss by 2 (Ge)ᵀδ + δᵀGδ.

    Attributes:
        number: of each row in its matrix, (rows,).
        value: r, ŵ where the method kept the weight and w elsewhere, (rows, in_features).
        keep: the mask, bool, same shape.
        change: δ, same shape.
        slope: 2 G e, same shape.
        least_gain: what a swap has to take from the row's loss, (rows,); infinite where the row is finished.
        made: swaps so far, (rows,).
    """

    number: Tensor
    value: Tensor
    keep: Tensor
    change: Tensor
    slope: Tensor
    least_gain: Tensor
    made: Tensor

    def __len__(self) -> int:
        return len(self.number)

    def own_changes(self, gram: Tensor) -> Tensor:
        """How the loss changes where one weight alone is exchanged: δ_j (2 (Ge)_j + δ_j G_jj), (rows, in_features)."""
        return torch.addcmul(self.slope, self.change, gram.diagonal()).mul_(self.change)

    def kept(self, values: Tensor) -> Tensor:
        """The values of kept weights, and infinity elsewhere."""
        return values.masked_fill(~self.keep, torch.inf)

    def pruned(self, values: Tensor) -> Tensor:
        """The values of pruned weights, and infinity elsewhere."""
        return values.masked_fill(self.keep, torch.inf)

    def take(self, index: Tensor) -> "SwapRows":
        """Copies of some of the rows."""
        return replace(self, **{item.name: getattr(self, item.name)[index] for item in fields(self)})

    def put(self, index: Tensor, rows: "SwapRows") -> None:
        """Put copies back that ``take`` made and that have changed."""
        self.keep[index], self.change[index], self.slope[index] = rows.keep, rows.change, rows.slope
        self.made[index] = rows.made

    def exchange(self, channels: Tensor, is_exchanged: Tensor, gram: Tensor) -> None:
        """Exchange some weights of every row, in place.

        Args:
            channels: of the weights, (rows, count); one that is exchanged may stand there again as one that is not.
            is_exchanged: bool, same shape; as many kept as pruned ones in every row.
            gram: G, (in_features, in_features).
        """
        change = self.change.gather(1, channels) * is_exchanged
        self.slope += embedding_bag(channels, gram, mode="sum", per_sample_weights=2 * change)
        times = torch.zeros_like(self.keep, dtype=torch.uint8)
        is_flipped = times.scatter_add_(1, channels, is_exchanged.to(torch.uint8)).bool()
        self.keep ^= is_flipped
        self.change = torch.where(is_flipped, torch.where(self.keep, self.value, -self.value), self.change)
        self.made += is_exchanged.sum(1) // 2


def pair_products(gram: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """G at every pair of two lists of channels, (rows, first, second), of shapes (rows, first) and (rows, second)."""
    return gram.reshape(-1)[(first * len(gram))[:, :, None] + second[:, None, :]]
