"""A weight with inputs that have means, for what corrects it."""

import torch

from statprune.core.patterns import Unstructured
from statprune.core.statistics import InputStatistics


def observed(inputs, sample_index=None):
    """Statistics of inputs, by default with all rows sampled."""
    sample_index = torch.arange(len(inputs)) if sample_index is None else sample_index
    statistics = InputStatistics(inputs.shape[1], sample_index=sample_index, dtype=torch.float64)
    statistics.update(inputs)
    return statistics


def make(tokens=64, out_features=5, in_features=8, seed=0, mean=1.5):
    """Weight, inputs with means and different variances, and statistics with all rows; float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator, dtype=torch.float64)
    spread = torch.rand(in_features, generator=generator, dtype=torch.float64) + 0.2
    centre = mean * torch.randn(in_features, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, in_features, generator=generator, dtype=torch.float64) * spread + centre
    return weight, inputs, observed(inputs)


def half(weight):
    """The mask of half of the weights."""
    return Unstructured(0.5).select(weight.abs())
