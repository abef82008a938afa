"""Each matrix's pattern: the same everywhere, or ratios that are outlier-weighted (OWL) or explicit."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.patterns import NOT_FINITE, Pattern
from statprune.core.scores import wanda
from statprune.core.statistics import InputStatistics
from statprune.errors import ModelError
from statprune.model.matrix import Block, PrunableMatrix
from statprune.system.registry import Registry, subclass_of

LARGEST_RATIO = 0.99  # a block is never emptied, however few outliers it has

# input statistics of each block's matrices, block by block, from one pass of the dense model; its weights are loaded
ObserveBlocks = Callable[[], Iterable[tuple[Block, Mapping[str, InputStatistics]]]]


# options that records have whatever the allocation is, since they had them before allocations were plugins
ALWAYS_RECORDED = {"outlier_threshold": None, "max_deviation": None}
UNIFORM = "uniform"  # in an allocation's place: every matrix has the overall ratio


class Allocation(ABC):
    """Spreads an overall ratio over the matrices.

    A frozen dataclass of its options, which are the keys ``sparsity.*`` beside the pattern's.
    """

    needs_forward: ClassVar[bool] = False  # whether ``ratios`` calls ``observe``
    reads_weights: ClassVar[bool] = False  # whether ``ratios`` takes long: it is not asked before it is needed

    @abstractmethod
    def ratios(self, blocks: Sequence[Block], ratio: float, observe: ObserveBlocks) -> dict[str, float]:
        """Ratio of each matrix, by full name.

        Args:
            blocks: the decoder blocks.
            ratio: overall fraction to remove, the mean over all weights.
            observe: gives input statistics; only called where ``needs_forward``.

        Raises:
            ModelError: the allocation does not fit the blocks.
        """


ALLOCATIONS: Registry[type[Allocation]] = Registry(
    "allocation",
    "statprune.allocations",
    {"owl": f"{__name__}:Owl", "alpha": "statprune.pruning.alpha:Alpha"},
    subclass_of(Allocation),
    reserved=(UNIFORM,),
)


@dataclass(frozen=True)
class Owl(Allocation):
    """Outlier-weighted ratios (OWL, Yin et al. 2023): the more outliers a block has, the less of it is removed.

    D_b is the share of block b's weights whose |W_ij| ‖x_j‖ is above M times the block's mean of it. Block b loses

        s_b = s₀ − 2λ (D_b − min D) / (max D − min D),   within [0, 0.99],

    with s₀ such that the mean over all weights is the ratio asked for (arXiv 2310.05175, §3.2). Its authors tune M and
    λ for each model; the defaults are those of their Llama runs.

    Attributes:
        outlier_threshold: an outlier's Wanda score is above so many times its block's mean score (the paper's M).
        max_deviation: block ratios span at most twice so much (the paper's λ) [fraction].
    """

    outlier_threshold: float = 5.0
    max_deviation: float = 0.08

    needs_forward: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.outlier_threshold <= 0:
            raise ValueError(f"sparsity.outlier_threshold={self.outlier_threshold} is not positive; OWL takes 3 to 10")
        if not 0 <= self.max_deviation < 0.5:
            raise ValueError(f"sparsity.max_deviation={self.max_deviation} is outside [0, 0.5); OWL takes 0.08")

    def ratios(self, blocks: Sequence[Block], ratio: float, observe: ObserveBlocks) -> dict[str, float]:
        """Ratio of each matrix, by full name."""
        fractions = [outlier_fraction(block, statistics, self.outlier_threshold) for block, statistics in observe()]
        return owl_ratios(blocks, fractions, ratio, self.max_deviation)


@dataclass(frozen=True)
class BlockRatios(Allocation):
    """One explicit ratio for each block.

    Attributes:
        values: fraction removed of each block, in [0, 1).
    """

    values: tuple[float, ...]

    needs_forward: ClassVar[bool] = False

    def ratios(self, blocks: Sequence[Block], ratio: float, observe: ObserveBlocks) -> dict[str, float]:
        """Ratio of each matrix, by full name: its block's."""
        _check_range(self.values)
        if len(self.values) != len(blocks):
            raise ModelError(
                f"sparsity.layer_ratios has {len(self.values)} ratios, but the model has {len(blocks)} blocks"
            )
        return {
            block.full_name(matrix): float(self.values[block.index]) for block in blocks for matrix in block.matrices
        }


@dataclass(frozen=True)
class NamedRatios(Allocation):
    """Explicit ratios by regular expression.

    Attributes:
        values: (expression, fraction removed, in [0, 1)); a matrix takes the first expression that is found in its full
            name, and the overall ratio where there is none.
    """

    values: tuple[tuple[str, float], ...]

    needs_forward: ClassVar[bool] = False

    def ratios(self, blocks: Sequence[Block], ratio: float, observe: ObserveBlocks) -> dict[str, float]:
        """Ratio of each matrix, by full name."""
        _check_range([value for _, value in self.values])
        by_expression = dict(self.values)
        result, used = {}, set()
        for block in blocks:
            for matrix in block.matrices:
                name = block.full_name(matrix)
                match = next((expression for expression in by_expression if re.search(expression, name)), None)
                used.add(match)
                result[name] = ratio if match is None else float(by_expression[match])
        unused = [expression for expression in by_expression if expression not in used]
        if unused:
            raise ModelError(
                f"sparsity.layer_ratios: {', '.join(unused)} decides no layer's ratio; "
                f"names are like {next(iter(result))}"
            )
        return result


def check_pattern(blocks: Sequence[Block], pattern: Pattern, allocation: Allocation | None = None) -> None:
    """Raise ModelError, naming the matrices, where the pattern or its allocation does not fit the blocks."""
    unfit: dict[str, list[str]] = {}  # kinds of matrices by problem, so that each problem is told once
    for block in blocks:
        for matrix in block.matrices:
            if problem := pattern.problem(matrix.in_features):
                kinds = unfit.setdefault(problem, [])
                kinds += [] if matrix.kind in kinds else [matrix.kind]
    if unfit:
        names = "; ".join(f"{problem} ({', '.join(kinds)})" for problem, kinds in unfit.items())
        raise ModelError(
            f"the pattern does not fit: {names}; choose one that fits, or leave these layers dense with model.exclude"
        )
    if allocation is None:
        return
    if pattern.at_ratio(pattern.target) is None:
        raise ModelError("only unstructured sparsity can be allocated: N:M has one ratio everywhere")
    if not (allocation.needs_forward or allocation.reads_weights):
        allocated(blocks, pattern, allocation, _nothing_observed)


def matrix_ratios(
    blocks: Sequence[Block], pattern: Pattern, allocation: Allocation | None, observe: ObserveBlocks
) -> dict[str, float] | None:
    """Each matrix's ratio, by full name; None without an allocation.

    Each is a whole number of weights, and all together remove the overall ratio to one weight.

    Args:
        blocks: the decoder blocks.
        pattern: the overall pattern.
        allocation: how it is spread; None: every matrix has the pattern as it is.
        observe: gives input statistics of the dense model.
    """
    if allocation is None:
        return None
    return whole_counts(blocks, allocated(blocks, pattern, allocation, observe))


def matrix_patterns(
    blocks: Sequence[Block], pattern: Pattern, ratios: Mapping[str, float] | None
) -> dict[str, Pattern]:
    """Each matrix's pattern, by full name.

    Args:
        blocks: the decoder blocks.
        pattern: the overall pattern.
        ratios: of ``matrix_ratios``.
    """
    if ratios is None:
        return {block.full_name(matrix): pattern for block in blocks for matrix in block.matrices}
    return {name: pattern.at_ratio(ratio) or pattern for name, ratio in ratios.items()}


def allocated(
    blocks: Sequence[Block], pattern: Pattern, allocation: Allocation, observe: ObserveBlocks
) -> dict[str, float]:
    """The allocation's ratios, once it is known that each matrix has one.

    Raises:
        ModelError: a matrix has no ratio, or one outside [0, 1).
    """
    ratios = allocation.ratios(blocks, pattern.target, observe)
    for block in blocks:
        for matrix in block.matrices:
            ratio = ratios.get(block.full_name(matrix))
            if ratio is None or not 0 <= ratio < 1:
                what = "no ratio" if ratio is None else f"the ratio {ratio}, which is outside [0, 1),"
                raise ModelError(f"{type(allocation).__name__} gives {what} to {block.full_name(matrix)}; mend it")
    return ratios


def outlier_fraction(block: Block, statistics: Mapping[str, InputStatistics], threshold: float) -> float:
    """Fraction of the block's weights with |W_ij| · ‖x_j‖₂ / √tokens above ``threshold`` times its mean.

    Where every matrix sees the same tokens, as in models without experts, that is Yin et al.'s (2023) fraction.

    Raises:
        ModelError: a matrix's weights or inputs are not finite.
    """

    def score(matrix: PrunableMatrix) -> Tensor:
        own = statistics[matrix.name]
        # per token: experts see different numbers of them, and a pooled norm is over those of all experts
        return wanda(matrix.read(), own).div_(max(own.count, 1) ** 0.5)

    count = sum(matrix.weights for matrix in block.matrices)
    totals = {matrix.name: score(matrix).sum(dtype=torch.float64).item() for matrix in block.matrices}
    for name, total in totals.items():
        if not math.isfinite(total):
            raise ModelError(f"layer {name} of block {block.index} has no outliers to count: {NOT_FINITE}")
    mean = sum(totals.values()) / max(count, 1)
    outliers = sum(int((score(matrix) > threshold * mean).sum()) for matrix in block.matrices)
    return outliers / max(count, 1)


def owl_ratios(
    blocks: Sequence[Block], fractions: Sequence[float], ratio: float, max_deviation: float
) -> dict[str, float]:
    """Ratio of each matrix, by full name: the more outliers its block has, the less is removed (Yin et al. 2023, §3.2).

    Args:
        blocks: the decoder blocks.
        fractions: outlier fraction of each block.
        ratio: overall fraction removed, the mean over all weights.
        max_deviation: λ; the ratios span 2λ, where the bounds 0 and 0.99 allow it.
    """
    weights = {block.index: sum(matrix.weights for matrix in block.matrices) for block in blocks if block.matrices}
    outliers = {index: fractions[index] for index in weights}
    least = min(outliers.values())
    spread = max(outliers.values()) - least or 1.0  # blocks that are all alike have no spread
    largest = max(LARGEST_RATIO, ratio)
    # divided first: 2λ over a spread of nearly nothing is infinite
    reductions = {index: (fraction - least) / spread * 2 * max_deviation for index, fraction in outliers.items()}
    low, high = 0.0, 2.0  # the least loaded block's ratio, by bisection: the bounds make the mean piecewise linear
    for _ in range(60):
        most = (low + high) / 2
        ratios = {index: min(max(most - reductions[index], 0.0), largest) for index in weights}
        mean = sum(ratios[index] * weights[index] for index in weights) / sum(weights.values())
        low, high = (most, high) if mean < ratio else (low, most)
    return {block.full_name(matrix): ratios[block.index] for block in blocks for matrix in block.matrices}


def whole_counts(blocks: Sequence[Block], ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratios, each moved to a whole number of its matrix's weights so that together they lose less than one."""
    result, target, removed = {}, 0.0, 0
    for block in blocks:
        for matrix in block.matrices:
            name = block.full_name(matrix)
            target += ratios[name] * matrix.weights
            count = min(max(round(target) - removed, 0), matrix.weights - 1)
            removed += count
            result[name] = count / matrix.weights
    return result


def _check_range(ratios: Iterable[float]) -> None:
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise ModelError(f"sparsity.layer_ratios: {ratio} is outside [0, 1)")


def _nothing_observed() -> Iterable[tuple[Block, Mapping[str, InputStatistics]]]:
    return []
