"""The block loop: observe → solve → compensate → replace → propagate (paper, Algorithm 1)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from statprune.activations import Keep, OnDevice
from statprune.allocation import Owl, check_pattern, layer_patterns
from statprune.blocks import Batch, Collector, advance, capture, observe
from statprune.compensation import Energy
from statprune.errors import ModelError
from statprune.lockstep import run_in_lockstep
from statprune.masks import Pattern
from statprune.methods import Method
from statprune.models import Block, Layer, streamer_of
from statprune.statistics import InputStatistics, StatisticsKind
from statprune.structure import eager_experts, find_blocks
from statprune.timing import Clock, stopwatch

PROPAGATIONS = ("pruned", "sequential", "dense")
SAMPLED_TOKENS = 1024  # input rows on which each layer's output error is measured


@torch.inference_mode(False)
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
    keep: Keep = OnDevice,
) -> dict[str, float]:
    """Prune the model's decoder blocks in place.

    Args:
        model: a causal language model.
        windows: calibration token ids, (samples, seq_len).
        method: selects, and may update, each weight.
        pattern: what is kept.
        compensation: applied after the method, or None.
        propagation: pruned (blocks see what the pruned blocks before them produce), sequential (matrices see what the
            pruned matrices before them produce, which takes one forward per block instead of two) or dense.
        batch_size: windows that go through a block together.
        seed: of the sampled input rows.
        on_block: called with (block, all blocks, one report per layer).
        blocks: from ``find_blocks``, where some matrices are to be left dense.
        allocation: None (every layer has the pattern's ratio), an ``Owl``, or explicit ratios (``given_ratios``).
        min_expert_tokens: an expert that fewer calibration tokens reach is pruned with the statistics of its mixture.
        keep: where the windows' hidden states wait between two blocks (``activations.keeper``).

    Returns:
        Seconds by phase: calibrate, allocate (with OWL), observe, solve, propagate.

    Raises:
        ModelError: the model can't be walked, or the pattern does not fit a layer: nothing was changed. Or a layer
            can't be solved, since its inputs or weights are not finite: the blocks before it are pruned.
        ValueError: ``propagation`` is none of the three, or ``batch_size`` is not positive.
    """
    if propagation not in PROPAGATIONS:
        raise ValueError(f"propagation={propagation!r} is unknown; choose one of {', '.join(PROPAGATIONS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is too small; give at least 1 window")
    clock = Clock(model.device)
    if blocks is None:
        blocks = find_blocks(model, windows)
    check_pattern(blocks, pattern, allocation)
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(windows.numel(), generator=generator)[:SAMPLED_TOKENS].sort().values
    with eager_experts(model):
        batches = capture(model, blocks, windows, batch_size, keep)
        clock.lap("calibrate")
        patterns = layer_patterns(blocks, pattern, allocation, batches, min_expert_tokens)
        if isinstance(allocation, Owl):
            clock.lap("allocate")

        for block in blocks:
            reports: dict[str, dict[str, Any]] = {}

            def solve(layer: Layer, statistics: InputStatistics, block: Block = block, reports: Any = reports) -> None:
                clock.lap("observe")
                reports[layer.name] = _prune_layer(
                    block, layer, statistics, method, patterns[block.full(layer)], compensation
                )
                clock.lap("solve")

            with block.loaded(changed=True):
                if propagation == "sequential":
                    propagated = _prune_in_lockstep(block, batches, method.needs, sample, min_expert_tokens, solve)
                else:
                    propagated = propagation == "dense"
                    statistics = observe(block, batches, method.needs, sample, propagated, min_expert_tokens)
                    for layer in block.layers:
                        solve(layer, statistics[layer.name])
                clock.lap("observe")
                if not propagated and block is not blocks[-1]:  # the last block's output feeds no other
                    advance(block, batches)
            clock.lap("propagate")

            if on_block is not None:
                done = [_numbers(reports[layer.name]) for layer in block.layers]
                on_block(block.index, len(blocks), done)
    streamer = streamer_of(model)
    if streamer is not None:
        streamer.settle()
        clock.lap("propagate")
    return clock.seconds


def _prune_in_lockstep(
    block: Block,
    batches: list[Batch],
    needs: StatisticsKind,
    sample: Tensor,
    min_expert_tokens: int,
    solve: Callable[[Layer, InputStatistics], None],
) -> bool:
    """Prune each layer once all windows have come to it; whether the batches hold the pruned block's outputs then.

    Experts are pruned after the block's run, together: those that few tokens reach need the statistics of all.
    """
    experts = [layer for layer in block.layers if layer.stack is not None]
    collector = Collector(block, needs, sample)
    run_in_lockstep(
        block, batches, collector, lambda layer: solve(layer, collector.statistics[layer.name]), advance=not experts
    )
    statistics = collector.finished(min_expert_tokens)
    for layer in experts:
        solve(layer, statistics[layer.name])
    return not experts


def _prune_layer(
    block: Block,
    layer: Layer,
    statistics: InputStatistics,
    method: Method,
    pattern: Pattern,
    compensation: Energy | None,
) -> dict[str, Any]:
    """Prune one layer in place; returns its report, with single numbers still as tensors."""
    stop = stopwatch(layer.parameter.device)
    dense = layer.read()
    try:
        weight, keep, report = method.solve(dense, statistics, pattern)
    except ValueError as error:
        raise ModelError(f"layer {layer.name} of block {block.index} can't be pruned: {error}") from error
    if compensation is not None:
        weight, scales = compensation.apply(dense, weight, keep, statistics)
        report = report | scales
    layer.write(weight)
    report |= {"relative_output_error": output_error(dense, weight, statistics.rows)}
    return _description(block, layer, statistics, pattern) | report | {"seconds": stop()}


def _description(block: Block, layer: Layer, statistics: InputStatistics, pattern: Pattern) -> dict[str, Any]:
    return {
        "block": block.index,
        "layer": layer.name,
        "expert": layer.expert,
        "out_features": layer.out_features,
        "in_features": layer.in_features,
        "weights": layer.weights,
        "target_sparsity": pattern.target,
        "sparsity": (layer.stored == 0).double().mean(),
        "calibration_tokens": statistics.own_count,
        "pooled_statistics": statistics.is_pooled,
    }


def output_error(dense: Tensor, weight: Tensor, rows: Tensor) -> Tensor | None:
    """‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ over sampled calibration inputs X, (samples, in_features); None without samples."""
    if not len(rows):
        return None
    rows = rows.to(dense.dtype)
    return (rows @ (dense - weight).T).norm() / (rows @ dense.T).norm()


def _numbers(report: dict[str, Any]) -> dict[str, Any]:
    """The report with Python numbers; None where there is none, as a ratio to the energy of zeros."""
    numbers = {key: value() if callable(value) else value for key, value in report.items()}
    numbers = {key: value.item() if isinstance(value, Tensor) else value for key, value in numbers.items()}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in numbers.items()}
