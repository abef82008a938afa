"""AlphaPruning (Lu et al., NeurIPS 2024): ratios by how heavy-tailed the spectra of each block's weights are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from statprune.core.patterns import NOT_FINITE
from statprune.errors import ModelError
from statprune.model.matrix import Block
from statprune.pruning.allocation import LARGEST_RATIO, Allocation, ObserveBlocks

NOISE = 1e-10  # eigenvalues below this share of the largest are rounding errors of zero
WINDOW = (0.95, 1.5)  # times the peak of the histogram: where the tail may begin


@dataclass(frozen=True)
class Alpha(Allocation):
    """AlphaPruning: ratios by the spectra of the weights, without data (Lu et al., NeurIPS 2024, arXiv 2410.10912).

    Of each matrix, with λ the eigenvalues of WᵀW, the tail above some λ_min follows a power law with Hill's exponent

        α = 1 + n / Σ ln(λ_i / λ_min)   over the n eigenvalues λ_i ≥ λ_min.

    Every eigenvalue from 0.95 to 1.5 times the peak of the histogram of log λ (the left edge of its fullest bin) is
    tried as λ_min, and that one taken whose law has the least Kolmogorov–Smirnov distance from its tail,
    max_i |1 − (λ_i / λ_min)^(1−α) − i/n|, i from 0. A small α is a heavy tail, as well-trained blocks have: they lose
    less. The blocks' means of α are mapped linearly to [1 − ε, 1 + ε] and scaled so that the ratios' mean over all
    weights is the one asked for; all matrices of a block have its ratio.

    Its authors take ε = 0.3 with Wanda, 0.2 with SparseGPT and 0.5 with magnitude. An allocation cannot see the method:
    give ``sparsity.deviation`` with the others. They expect gains from 60–70% on.

    What was decided here: the experts of a mixture count together as one matrix in their block's mean, by the mean of
    their α; eigenvalues below 1e-10 of the largest are none; a matrix whose tail has no two different eigenvalues (one
    row, zeros) has no α and is left out, and a block without any gets the middle, 1. No ratio is above 0.99 (or the one
    asked for); where that binds, the others grow until the mean is met. The authors' code compares eigenvalues with the
    logarithm of the lower bound, which leaves none in force where that is negative; here it is the bound that it names.

    Attributes:
        deviation: ε; the blocks' ratios span (1 − ε) to (1 + ε), times a common factor [fraction].
        bins: of the histogram.
    """

    deviation: float = 0.3
    bins: int = 100

    reads_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < 1:
            raise ValueError(f"sparsity.deviation={self.deviation} is outside [0, 1); AlphaPruning takes 0.2 to 0.5")
        if self.bins < 1:
            raise ValueError(f"sparsity.bins={self.bins} is not a positive number; AlphaPruning takes 100")

    def ratios(self, blocks: Sequence[Block], ratio: float, observe: ObserveBlocks) -> dict[str, float]:
        """Ratio of each matrix, by full name.

        Raises:
            ModelError: a matrix's weights are not finite.
        """
        exponents = {block.index: mean_exponent(block, self.bins) for block in blocks if block.matrices}
        weights = {block.index: sum(matrix.weights for matrix in block.matrices) for block in blocks if block.matrices}
        ratios = scaled_ratios(relative_ratios(exponents, self.deviation), weights, ratio)
        return {block.full_name(matrix): ratios[block.index] for block in blocks for matrix in block.matrices}


def mean_exponent(block: Block, bins: int) -> float | None:
    """Mean α of the block's matrices, a mixture's experts counting as one; None where no matrix has one.

    Raises:
        ModelError: a matrix's weights are not finite.
    """
    by_kind: dict[str, list[float]] = {}
    with block.loaded():
        for matrix in block.matrices:
            weight = matrix.read()
            if not weight.isfinite().all():
                raise ModelError(f"layer {matrix.name} of block {block.index} has no spectrum: {NOT_FINITE}")
            exponent = tail_exponent(eigenvalues(weight), bins)
            if exponent is not None:
                by_kind.setdefault(matrix.kind, []).append(exponent)
    means = [sum(values) / len(values) for values in by_kind.values()]
    return sum(means) / len(means) if means else None


def eigenvalues(weight: Tensor) -> np.ndarray:
    """The eigenvalues of WᵀW that are not zero, ascending, float64; in units of the largest weight's square."""
    unit = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
    scaled = (weight / unit).double()
    products = scaled @ scaled.T if len(scaled) < scaled.shape[1] else scaled.T @ scaled
    values = torch.linalg.eigvalsh(products).cpu().numpy()
    kept: np.ndarray = values[values > NOISE * values[-1]] if values[-1] > 0 else values[:0]
    return kept


def tail_exponent(values: np.ndarray, bins: int) -> float | None:
    """Hill's exponent of the tail that fits its power law best; None where no tail has two different values.

    Args:
        values: positive, ascending.
        bins: of the histogram of their logarithms.
    """
    if len(values) < 2 or values[0] == values[-1]:
        return None
    logarithms = np.log(values)
    counts, edges = np.histogram(logarithms, bins)
    peak = np.exp(edges[counts.argmax()])
    best, least = None, np.inf
    for first in np.flatnonzero((values >= WINDOW[0] * peak) & (values <= WINDOW[1] * peak)):
        above = logarithms[first:] - logarithms[first]
        if above[-1] <= 0:
            continue
        count = len(above)
        exponent = 1 + count / above.sum()
        distance = np.abs(1 - np.exp((1 - exponent) * above) - np.arange(count) / count).max()
        if distance < least:
            best, least = float(exponent), distance
    return best


def relative_ratios(exponents: Mapping[int, float | None], deviation: float) -> dict[int, float]:
    """Each block's mean α, mapped linearly to [1 − ε, 1 + ε]; 1 where all are alike, or a block has none."""
    known = [exponent for exponent in exponents.values() if exponent is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def mapped(exponent: float | None) -> float:
        if exponent is None or high == low:
            return 1.0
        return 1 - deviation + 2 * deviation * (exponent - low) / (high - low)

    return {index: mapped(exponent) for index, exponent in exponents.items()}


def scaled_ratios(relative: Mapping[int, float], weights: Mapping[int, int], ratio: float) -> dict[int, float]:
    """Ratios in proportion to ``relative``, of which none is above 0.99 (or ``ratio``), with the mean ``ratio``.

    Args:
        relative: by block, positive.
        weights: of each block; the mean is over them.
        ratio: wanted of all.
    """
    largest = max(LARGEST_RATIO, ratio)
    wanted = ratio * sum(weights.values())
    bound: set[int] = set()  # blocks that are at the largest ratio
    while True:
        free = {index: value for index, value in relative.items() if index not in bound}
        left = wanted - largest * sum(weights[index] for index in bound)
        total = sum(value * weights[index] for index, value in free.items())
        factor = left / total if free else 0.0
        above = {index for index, value in free.items() if value * factor > largest}
        if not above:
            return {index: largest if index in bound else value * factor for index, value in relative.items()}
        bound |= above
