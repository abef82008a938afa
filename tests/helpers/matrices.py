"""A random matrix with inputs and their statistics."""

import torch
from torch import Tensor

from statprune.core.statistics import InputStatistics, StatisticsKind


def random_matrix(
    out_features: int = 6,
    in_features: int = 8,
    tokens: int = 50,
    seed: int = 0,
    kind: StatisticsKind = StatisticsKind.GRAM,
) -> tuple[Tensor, Tensor, InputStatistics]:
    """Weight, inputs and the inputs' statistics from several batches; float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, in_features, generator=generator, dtype=torch.float64) + 0.3
    statistics = InputStatistics(in_features, kind, dtype=torch.float64)
    for batch in inputs.split(7):
        statistics.update(batch)
    return weight, inputs, statistics
