"""What rewrites of alternating directions share; weights are stored as (inputs, outputs) there."""

import torch

from statprune.core.patterns import Group, NofM
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.matrices import random_matrix


def correlated(out_features=6, in_features=8, tokens=50, seed=0, dtype=torch.float64):
    """Weight, inputs whose channels are correlated and of different sizes, and their statistics."""
    weight, inputs, _ = random_matrix(out_features, in_features, tokens, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    mixing = torch.randn(in_features, in_features, generator=generator, dtype=torch.float64)
    inputs = inputs @ (mixing * torch.logspace(-1, 0.5, in_features, dtype=torch.float64))
    statistics = InputStatistics(in_features, StatisticsKind.GRAM, dtype=torch.float64)
    statistics.update(inputs)
    return weight.to(dtype), inputs, statistics


def largest(values, pattern):
    """0/1 mask of the largest magnitudes of (inputs, outputs), each column a row of the weight."""
    mask = torch.zeros(values.shape, dtype=values.dtype)
    inputs, outputs = values.shape
    if isinstance(pattern, NofM):
        for o in range(outputs):
            for first in range(0, inputs, pattern.of):
                group = sorted(range(first, first + pattern.of), key=lambda i: -abs(values[i, o]))
                mask[group[: pattern.keep], o] = 1
        return mask
    if pattern.group is Group.row:
        for o in range(outputs):
            kept = sorted(range(inputs), key=lambda i: -abs(values[i, o]))
            mask[kept[: inputs - int(pattern.ratio * inputs)], o] = 1
        return mask
    order = values.abs().flatten().argsort(descending=True)
    mask.view(-1)[order[: values.numel() - int(pattern.ratio * values.numel() + 1e-9)]] = 1
    return mask


def conjugate_gradients(system, w, mask, start, steps):
    """The textbook's steps on each output's own support; the diagonal is all ones."""
    result = start.clone()
    for o in range(w.shape[1]):
        kept = mask[:, o].bool()
        own, aim, v = system[kept][:, kept], (system @ w[:, o])[kept], start[kept, o]
        r = p = aim - own @ v
        for _ in range(steps):
            if r @ r == 0:
                break
            length = (r @ r) / (p @ own @ p)
            v, before = v + length * p, r @ r
            r = r - length * (own @ p)
            p = r + (r @ r) / before * p
        result[kept, o] = v
    return result


def relative_loss(weight, other, statistics):
    """Relative energy of what pruning takes from the outputs."""
    missing = weight - other
    return (((missing @ statistics.gram) * missing).sum() / ((weight @ statistics.gram) * weight).sum()).item()


def sampled(inputs, index=None, dtype=torch.float64):
    """Statistics without a Gram matrix, with every row sampled or those of the index."""
    index = torch.arange(len(inputs)) if index is None else index
    statistics = InputStatistics(inputs.shape[1], StatisticsKind.MOMENTS, index, dtype=dtype)
    statistics.update(inputs)
    return statistics
