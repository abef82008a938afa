"""A score: how important each weight of a matrix is."""

from dataclasses import dataclass

from torch import Tensor

import statprune


@dataclass(frozen=True)
class CentredOptions:
    """Its fields are the keys ``method.*``; this docstring is their help.

    Attributes:
        mean_share: how much of an input's mean counts; 0: only its variance, 1: all, which gives Wanda's masks.
    """

    mean_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mean_share <= 1:
            raise ValueError(f"method.mean_share={self.mean_share} is outside [0, 1]; 1 gives Wanda's masks")


@statprune.score(needs=statprune.StatisticsKind.MOMENTS)
def centred_wanda(weight: Tensor, statistics: statprune.InputStatistics, options: CentredOptions) -> Tensor:
    """|W_ij| · √(Var(x_j) + share · E[x_j]²)."""
    # statistics are float64, the weight usually is not: the score has the weight's dtype
    energy = statistics.variance + options.mean_share * statistics.mean.square()
    return weight.abs() * energy.sqrt().to(weight.dtype)
