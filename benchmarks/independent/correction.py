"""Magnitude, the paper's score and its energy compensation, plainly, in float64: nothing of statprune imported.

Written from the equations of "PAPER" (notes on arXiv 2602.07375), docs/methods/{cvr,energy,magnitude}.md and the two
rules for equal scores of docs/decisions/ties.md, not from statprune's code. Shapes are those of plain.py.
"""

import torch
from torch import Tensor

from benchmarks.independent.plain import Inputs, Pattern, Score, Solver, keep_mask


def cvr(alpha: float = 0.5, epsilon: float = 1e-8) -> Score:
    """§3.1: |W_ij| a_j c_j with a_j = Var(x_j)^(1/4) and c_j = (Var_i(W_ij) + ε)^(−α/2), population variances."""

    def score(weight: Tensor, inputs: Inputs) -> Tensor:
        dense = weight.double()
        of_column = (dense - dense.mean(0)).square().mean(0)
        return dense.abs() * inputs.variance ** (1 / 4) * (of_column + epsilon) ** (-alpha / 2)

    return score


def noisy(score: Score, share: float) -> Score:
    """A score with normal noise of a share of each value, to see what rounding may do."""

    def changed(weight: Tensor, inputs: Inputs) -> Tensor:
        values = score(weight, inputs)
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0), dtype=values.dtype)
        return values * (1 + share * noise)

    return changed


def with_last_of_equals(score: Score) -> Score:
    """A score that grows along the row by less than scores differ, so that of equal ones the last stays."""

    def changed(weight: Tensor, inputs: Inputs) -> Tensor:
        values = score(weight, inputs)
        return values * (1 + 1e-12 * torch.arange(values.shape[1]) / values.shape[1])

    return changed


def magnitude(weight: Tensor, inputs: Inputs, pattern: Pattern, begin: float = 0.5) -> Tensor:
    """The highest |W_ij| stay, over the whole matrix or within N:M groups.

    Many weights of the bundled checkpoint are equal. N:M keeps the first of them in a group. Over the matrix evenly
    spaced ones go, counted row by row; where the spacing begins is not said: in the middle of a step, if not at another
    share of it.
    """
    size = weight.abs()
    if pattern.of is not None:
        groups = size.reshape(-1, pattern.of)
        kept = pattern.of - round(pattern.ratio * pattern.of)
        highest = groups.sort(dim=1, descending=True, stable=True).indices[:, :kept]
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, highest, True).reshape(size.shape) * weight
    values = size.flatten()
    removed = int(pattern.ratio * len(values))
    threshold = values.sort().values[removed - 1]
    keep = values >= threshold
    equal = (values == threshold).nonzero()[:, 0]
    missing = removed - int((~keep).sum())
    keep[equal[((torch.arange(missing) + begin) * len(equal) / missing).long()]] = False
    return keep.reshape(size.shape) * weight


def with_energy(score: Score, columns: bool = True, rows: bool = True, dtype: torch.dtype = torch.float64) -> Solver:
    """§3.2: a scored mask, then the energies of the dense weight's columns, then those of its rows, given back."""

    def solve(weight: Tensor, inputs: Inputs, pattern: Pattern) -> Tensor:
        keep, dense = keep_mask(score(weight, inputs), pattern), weight.to(dtype)
        pruned = dense * keep
        if columns:
            pruned = energy_given_back(dense, pruned, dim=0) * keep
        if rows:
            pruned = energy_given_back(dense, pruned, dim=1) * keep
        return pruned

    return solve


def energy_given_back(dense: Tensor, pruned: Tensor, dim: int) -> Tensor:
    """μ + s (W̃ − μ), s = √(E / (Ẽ + ε)) clamped to [0.5, 2]; means over ``dim``, and both energies about dense's μ."""
    mean = dense.mean(dim, keepdim=True)
    energy = (dense - mean).square().sum(dim, keepdim=True)
    left = (pruned - mean).square().sum(dim, keepdim=True)
    scale = (energy / (left + 1e-12)).sqrt().clamp(0.5, 2.0)
    return mean + scale * (pruned - mean)
