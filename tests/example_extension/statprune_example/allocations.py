"""An allocation: how an overall ratio is spread over a model's matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import statprune


@dataclass(frozen=True)
class LinearDepth(statprune.Allocation):
    """The deeper a block is, the more of it is removed, along a straight line.

    Attributes:
        slope: ratio of the last block minus that of the first.
    """

    slope: float = 0.1

    def __post_init__(self) -> None:
        if not -1 < self.slope < 1:
            raise ValueError(f"sparsity.slope={self.slope} is outside (-1, 1); give a difference of two ratios")

    def ratios(
        self, blocks: Sequence[statprune.Block], ratio: float, observe: statprune.ObserveBlocks
    ) -> dict[str, float]:
        """Ratio of each matrix, by full name; their mean over all weights is ``ratio``."""
        weights = [sum(matrix.weights for matrix in block.matrices) for block in blocks]
        depths = [index / max(len(blocks) - 1, 1) for index in range(len(blocks))]
        middle = sum(depth * weight for depth, weight in zip(depths, weights, strict=True)) / sum(weights)
        by_block = [ratio + self.slope * (depth - middle) for depth in depths]
        if not all(0 <= own < 1 for own in by_block):
            raise statprune.ModelError(
                f"sparsity.slope={self.slope} takes a block's ratio out of [0, 1) at sparsity.ratio={ratio}; lower it"
            )
        return {
            block.full_name(matrix): own
            for block, own in zip(blocks, by_block, strict=True)
            for matrix in block.matrices
        }
