"""A compensation: a change of the weights that are kept, once the mask is fixed."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import statprune


@dataclass(frozen=True)
class RowNorm(statprune.Compensation):
    """Give every row of the pruned weight the norm that it had before.

    Attributes:
        max_scale: no row is scaled by more.
    """

    max_scale: float = 1.5

    needs: ClassVar[statprune.StatisticsKind] = statprune.StatisticsKind.NONE  # reads no statistics

    def __post_init__(self) -> None:
        if self.max_scale < 1:
            raise ValueError(f"compensation.max_scale={self.max_scale} is below 1; give at least 1")

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: statprune.InputStatistics
    ) -> tuple[Tensor, statprune.Diagnostics]:
        """The scaled weight, and numbers for the report of the matrix."""
        norm = pruned.norm(dim=1, keepdim=True)
        scale = torch.where(norm > 0, dense.norm(dim=1, keepdim=True) / norm, 1.0)  # a row may be pruned to nothing
        scale = scale.clamp(1.0, self.max_scale)
        return pruned * scale, {"row_scale_mean": scale.mean()}
