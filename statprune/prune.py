"""The block loop: observe → solve → compensate → replace → propagate (paper, Algorithm 1)."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from statprune.allocation import Owl, given_ratios, outlier_fraction, owl_ratios, whole_counts
from statprune.blocks import Batch, advance, capture, observe
from statprune.compensation import Energy
from statprune.errors import ModelError
from statprune.masks import Pattern, Unstructured
from statprune.methods import Method
from statprune.models import Block, Layer
from statprune.statistics import InputStatistics, StatisticsKind
from statprune.structure import eager_experts, find_blocks

SAMPLED_TOKENS = 1024  # input rows on which each layer's output error is measured


@torch.no_grad()
def prune(
    model: Any,
    windows: Tensor,
    method: Method,
    pattern: Pattern,
    compensation: Energy | None = None,
    propagation: str = "pruned",
    batch_size: int = 8,
    seed: int = 0,
    on_block: Callable[[int, int, list[dict[str, Any]]], None] | None = None,
    *,
    blocks: list[Block] | None = None,
    allocation: Any = None,
    min_expert_tokens: int = 32,
) -> dict[str, float]:
    """Prune the model's decoder blocks in place.

    Args:
        model: a causal language model.
        windows: calibration token ids, (samples, seq_len).
        method: selects, and may update, each weight.
        pattern: what is kept.
        compensation: applied after the method, or None.
        propagation: pruned (blocks see what the pruned blocks before them produce) or dense.
        batch_size: windows that go through a block together.
        seed: of the sampled input rows.
        on_block: called with (block, all blocks, one report per layer).
        blocks: from ``find_blocks``, where some matrices are to be left dense.
        allocation: None (every layer has the pattern's ratio), an ``Owl``, or explicit ratios (``given_ratios``).
        min_expert_tokens: an expert that fewer calibration tokens reach is pruned with the statistics of its mixture.

    Returns:
        Seconds by phase: calibrate, allocate (with OWL), observe, solve, propagate.

    Raises:
        ModelError: the model can't be walked, or the pattern does not fit a layer; nothing was changed then.
    """
    seconds = dict.fromkeys(("calibrate", "observe", "solve", "propagate"), 0.0)
    clock = _Clock(seconds, model.device)
    if blocks is None:
        blocks = find_blocks(model, windows)
    check_pattern(blocks, pattern)
    generator = torch.Generator().manual_seed(seed)
    sample_index = torch.randperm(windows.numel(), generator=generator)[:SAMPLED_TOKENS].sort().values
    with eager_experts(model):
        batches = capture(model, blocks, windows, batch_size)
        clock.lap("calibrate")
        patterns = _allocate(allocation, pattern, blocks, batches, min_expert_tokens)
        if isinstance(allocation, Owl):
            clock.lap("allocate")

        for block in blocks:
            dense = propagation == "dense"
            statistics = observe(block, batches, method.needs, sample_index, dense, min_expert_tokens)
            clock.lap("observe")

            reports = [
                _prune_layer(block, layer, statistics[layer.name], method, patterns[block.full(layer)], compensation)
                for layer in block.layers
            ]
            clock.lap("solve")

            if not dense and block.index + 1 < len(blocks):
                advance(block, batches)
            clock.lap("propagate")

            if on_block is not None:
                on_block(block.index, len(blocks), [_numbers(report) for report in reports])
    return seconds


def _allocate(
    allocation: Any, pattern: Pattern, blocks: list[Block], batches: list[Batch], min_expert_tokens: int
) -> dict[str, Pattern]:
    """Each layer's pattern, by full name; the batches are left as they were."""
    names = [block.full(layer) for block in blocks for layer in block.layers]
    if allocation is None:
        return dict.fromkeys(names, pattern)
    check_allocation(blocks, pattern, allocation)
    assert isinstance(pattern, Unstructured)
    if isinstance(allocation, Owl):
        inputs = [batch.hidden for batch in batches]
        fractions = []
        for block in blocks:
            statistics = observe(block, batches, StatisticsKind.MOMENTS, None, True, min_expert_tokens)
            fractions.append(outlier_fraction(block, statistics, allocation.outlier_threshold))
        for batch, hidden in zip(batches, inputs, strict=True):
            batch.hidden = hidden
        ratios = owl_ratios(blocks, fractions, pattern.ratio, allocation.max_deviation)
    else:
        ratios = given_ratios(blocks, allocation, pattern.ratio)
    ratios = whole_counts(blocks, ratios)
    return {name: replace(pattern, ratio=ratios[name], exact=True) for name in names}


def _prune_layer(
    block: Block,
    layer: Layer,
    statistics: InputStatistics,
    method: Method,
    pattern: Pattern,
    compensation: Energy | None,
) -> dict[str, Any]:
    """Prune one layer in place; what was done, with single numbers still as tensors."""
    start = time.perf_counter()
    dense = layer.read()
    try:
        weight, keep, report = method.solve(dense, statistics, pattern)
    except ValueError as error:
        raise ModelError(f"layer {layer.name} of block {block.index} can't be pruned: {error}") from error
    if compensation is not None:
        weight, scales = compensation.apply(dense, weight, keep, statistics)
        report = report | scales
    layer.write(weight)
    rows = statistics.rows
    return {
        "block": block.index,
        "layer": layer.name,
        "out_features": dense.shape[0],
        "in_features": dense.shape[1],
        "weights": layer.weights,
        "target_sparsity": pattern.target,
        "sparsity": (layer.stored == 0).double().mean(),
        "relative_output_error": output_error(dense, weight, rows) if len(rows) else None,
        "calibration_tokens": statistics.count,
        "pooled_statistics": statistics.is_pooled,
        **report,
        "seconds": time.perf_counter() - start,
    }


def output_error(dense: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ over sampled calibration inputs X, (samples, in_features)."""
    rows = rows.to(dense.dtype)
    return (rows @ (dense - weight).T).norm() / (rows @ dense.T).norm()


def check_pattern(blocks: list[Block], pattern: Pattern) -> None:
    """Raise ModelError, naming the layers, where the pattern does not fit."""
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


def check_allocation(blocks: list[Block], pattern: Pattern, allocation: Any) -> None:
    """Raise ModelError where the ratios don't fit the pattern or the blocks."""
    if allocation is not None and not isinstance(pattern, Unstructured):
        raise ModelError("only unstructured sparsity can be allocated: N:M has one ratio everywhere")
    if isinstance(pattern, Unstructured) and not isinstance(allocation, Owl | None):
        given_ratios(blocks, allocation, pattern.ratio)


def _numbers(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, Tensor) else value for key, value in report.items()}


class _Clock:
    """Adds the time since the last lap to a phase."""

    def __init__(self, seconds: dict[str, float], device: torch.device):
        self.seconds, self.device, self.last = seconds, device, time.perf_counter()

    def lap(self, phase: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now
