"""Each layer's pattern: the same everywhere, or ratios outlier-weighted (OWL, Yin et al. 2023) or as given."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from statprune.core.patterns import Pattern, Unstructured
from statprune.core.scores import NoOptions, wanda
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.loading import Block, Layer
from statprune.walk.batches import Batch, observe

LARGEST_RATIO = 0.99  # a block is never emptied, however few outliers it has


@dataclass(frozen=True)
class Owl:
    """OWL's parameters (its authors tune both by model; these are the values of their Llama runs).

    Attributes:
        outlier_threshold: M; an outlier's Wanda score is above M times its block's mean score.
        max_deviation: λ; block ratios span at most 2λ.
    """

    outlier_threshold: float = 5.0
    max_deviation: float = 0.08

    def __post_init__(self) -> None:
        if self.outlier_threshold <= 0:
            raise ValueError(f"sparsity.outlier_threshold={self.outlier_threshold} is not positive; OWL takes 3 to 10")
        if not 0 <= self.max_deviation < 0.5:
            raise ValueError(f"sparsity.max_deviation={self.max_deviation} is outside [0, 0.5); OWL takes 0.08")


def check_pattern(blocks: list[Block], pattern: Pattern, allocation: Any = None) -> None:
    """Raise ModelError, naming the layers, where the pattern or its allocation does not fit the blocks."""
    problems = {
        layer.kind: problem
        for block in blocks
        for layer in block.layers
        if (problem := pattern.problem(layer.in_features))
    }
    if problems:
        names = "; ".join(f"layer {name}: {problem}" for name, problem in problems.items())
        raise ModelError(
            f"the N:M pattern does not fit: {names}; choose an M that divides them, "
            "or leave them dense with model.exclude"
        )
    if allocation is not None and not isinstance(pattern, Unstructured):
        raise ModelError("only unstructured sparsity can be allocated: N:M has one ratio everywhere")
    if isinstance(pattern, Unstructured) and not isinstance(allocation, Owl | None):
        given_ratios(blocks, allocation, pattern.ratio)


def layer_patterns(
    blocks: list[Block], pattern: Any, allocation: Any, batches: list[Batch], min_expert_tokens: int
) -> dict[str, Pattern]:
    """Each layer's pattern, by full name; one that was allocated removes a whole number of weights, overall exact.

    Args:
        blocks: the decoder blocks.
        pattern: what is kept, overall.
        allocation: None, an ``Owl``, or explicit ratios (``given_ratios``).
        batches: the calibration windows at the first block, for OWL; they are left as they are.
        min_expert_tokens: see ``observe``.
    """
    if allocation is None:
        return {block.full(layer): pattern for block in blocks for layer in block.layers}
    if isinstance(allocation, Owl):
        walked = [batch.copy() for batch in batches]
        fractions = []
        for block in blocks:
            with block.loaded():
                statistics = observe(block, walked, StatisticsKind.MOMENTS, None, True, min_expert_tokens)
                fractions.append(outlier_fraction(block, statistics, allocation.outlier_threshold))
        ratios = owl_ratios(blocks, fractions, pattern.ratio, allocation.max_deviation)
    else:
        ratios = given_ratios(blocks, allocation, pattern.ratio)
    return {name: replace(pattern, ratio=ratio, exact=True) for name, ratio in whole_counts(blocks, ratios).items()}


def outlier_fraction(block: Block, statistics: dict[str, InputStatistics], threshold: float) -> float:
    """Fraction of the block's weights with |W_ij| · ‖x_j‖₂ / √tokens above ``threshold`` times its mean.

    With the same tokens for every layer, as in models without experts, that is Yin et al.'s (2023).
    """

    def score(layer: Layer) -> Tensor:
        seen = statistics[layer.name]
        # per token: experts see different numbers of them, and a pooled norm is over those of all experts
        return wanda(layer.read(), seen, NoOptions()).div_(max(seen.count, 1) ** 0.5)

    count = sum(layer.weights for layer in block.layers)
    mean = sum(score(layer).sum(dtype=torch.float64).item() for layer in block.layers) / max(count, 1)
    outliers = sum(int((score(layer) > threshold * mean).sum()) for layer in block.layers)
    return outliers / max(count, 1)


def owl_ratios(
    blocks: Sequence[Block], fractions: Sequence[float], ratio: float, max_deviation: float
) -> dict[str, float]:
    """Ratio of each layer, by full name: the more outliers its block has, the less is removed (Yin et al. 2023, §3.2).

    Args:
        blocks: the decoder blocks.
        fractions: outlier fraction of each block.
        ratio: overall fraction removed, the mean over all weights.
        max_deviation: λ; the ratios span 2λ, where the bounds 0 and 0.99 allow it.
    """
    weights = {block.index: sum(layer.weights for layer in block.layers) for block in blocks if block.layers}
    outliers = {index: fractions[index] for index in weights}
    least = min(outliers.values())
    spread = max(outliers.values()) - least or 1.0  # all alike: nothing is spread
    largest = max(LARGEST_RATIO, ratio)
    # divided first: 2λ over a spread that is nearly nothing is infinite
    less = {index: (fraction - least) / spread * 2 * max_deviation for index, fraction in outliers.items()}
    low, high = 0.0, 2.0  # the least loaded block's ratio, by bisection: the bounds make the mean piecewise linear
    for _ in range(60):
        most = (low + high) / 2
        ratios = {index: min(max(most - less[index], 0.0), largest) for index in weights}
        mean = sum(ratios[index] * weights[index] for index in weights) / sum(weights.values())
        low, high = (most, high) if mean < ratio else (low, most)
    return {block.full(layer): ratios[block.index] for block in blocks for layer in block.layers}


def given_ratios(blocks: Sequence[Block], given: Any, ratio: float) -> dict[str, float]:
    """Ratio of each layer, by full name, from a list (one per block) or a mapping of regular expressions.

    Args:
        blocks: the decoder blocks.
        given: a sequence of ratios, or {expression: ratio}; a layer takes the first expression found in its full name.
        ratio: of layers that no expression names.

    Raises:
        ModelError: not one ratio for each block, or an expression that names no layer.
    """
    for value in given.values() if isinstance(given, dict) else given:
        if not 0 <= value < 1:
            raise ModelError(f"sparsity.layer_ratios: {value} is outside [0, 1)")
    if not isinstance(given, dict):
        if len(given) != len(blocks):
            raise ModelError(f"sparsity.layer_ratios has {len(given)} ratios, but the model has {len(blocks)} blocks")
        return {block.full(layer): float(given[block.index]) for block in blocks for layer in block.layers}
    result, used = {}, set()
    for block in blocks:
        for layer in block.layers:
            name = block.full(layer)
            found = next((expression for expression in given if re.search(expression, name)), None)
            used.add(found)
            result[name] = ratio if found is None else float(given[found])
    unused = [expression for expression in given if expression not in used]
    if unused:
        raise ModelError(
            f"sparsity.layer_ratios: {', '.join(unused)} decides no layer's ratio; names are like {next(iter(result))}"
        )
    return result


def whole_counts(blocks: Sequence[Block], ratios: dict[str, float]) -> dict[str, float]:
    """The ratios, each moved to a whole number of its layer's weights so that together they lose less than one."""
    result, wanted, given = {}, 0.0, 0
    for block in blocks:
        for layer in block.layers:
            wanted += ratios[block.full(layer)] * layer.weights
            count = min(max(round(wanted) - given, 0), layer.weights - 1)
            given += count
            result[block.full(layer)] = count / layer.weights
    return result
