"""The block loop: observe → solve → compensate → replace → propagate (paper, Algorithm 1)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from statprune.core.compensation import Compensation
from statprune.core.methods import Method
from statprune.core.output_errors import output_errors
from statprune.core.patterns import NOT_FINITE, Pattern
from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.loading import Block, Layer, streamer_of
from statprune.pruning.allocation import Owl, check_pattern, layer_patterns
from statprune.system.distributed import gathered, owners, rank, share, size, spread, start
from statprune.system.malloc import give_back, return_at_once
from statprune.system.timing import Clock, stopwatch
from statprune.walk.activations import Keep, OnDevice
from statprune.walk.batches import Batch, Collector, advance, capture, observe
from statprune.walk.discover import eager_experts, find_blocks
from statprune.walk.lockstep import run_in_lockstep

OnBlock = Callable[[int, int, list[dict[str, Any]]], None]
PROPAGATIONS = ("pruned", "sequential", "dense")
SAMPLED_TOKENS = 256  # input rows on which each layer's output error is measured


@torch.inference_mode(False)
@torch.no_grad()
def prune(
    model: Any,
    windows: Tensor,
    method: Method,
    pattern: Pattern,
    compensation: Compensation | None = None,
    propagation: str = "pruned",
    batch_size: int | None = None,
    seed: int = 0,
    on_block: OnBlock | None = None,
    *,
    blocks: list[Block] | None = None,
    allocation: Any = None,
    min_expert_tokens: int = 32,
    keep: Keep = OnDevice,
    statistics: DenseStatistics | None = None,
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
        batch_size: windows that go through a block together; None: as many as keep the device busy.
        seed: of the sampled input rows.
        on_block: called with (block, all blocks, one report per layer).
        blocks: from ``find_blocks``, where some matrices are to be left dense.
        allocation: None (every layer has the pattern's ratio), an ``Owl``, or explicit ratios (``given_ratios``).
        min_expert_tokens: an expert that fewer calibration tokens reach is pruned with the statistics of its mixture.
        keep: where the windows' hidden states wait between two blocks (``activations.keeper``).
        statistics: for propagation=dense: used where they are collected already, with these very arguments, and
            collected where they are empty.

    Returns:
        Seconds by phase: calibrate, allocate (with OWL), observe, solve, propagate.

    Raises:
        ModelError: the model can't be walked, or the pattern does not fit a layer: nothing was changed. Or a layer
            can't be solved, since its inputs or weights are not finite: the blocks before it are pruned.
        ValueError: ``propagation`` is none of the three, or ``batch_size`` is not positive.
    """
    if propagation not in PROPAGATIONS:
        raise ValueError(f"propagation={propagation!r} is unknown; choose one of {', '.join(PROPAGATIONS)}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is too small; give at least 1 window")
    start(model.device)
    streamer = streamer_of(model)
    if streamer is None:
        return_at_once(5 * 2**20, but=2**26)  # parts of matrices are below
    batch_size = batch_size or automatic_batch_size(windows.shape[1], model.device)
    clock = Clock(model.device)
    if blocks is None:
        blocks = find_blocks(model, windows)
    check_pattern(blocks, pattern, allocation)
    if len(windows) < size():
        raise ModelError(f"{len(windows)} calibration windows can't be split over {size()} processes; start fewer")
    mine = share(len(windows))
    sample = _sampled(windows, mine, seed, sampled_rows(compensation))
    with eager_experts(model):
        known = statistics if propagation == "dense" else None
        batches: list[Batch] = []
        if known is None or not known.blocks or isinstance(allocation, Owl):
            batches = capture(model, blocks, windows[mine], batch_size, keep)
        clock.lap("calibrate")
        patterns = layer_patterns(blocks, pattern, allocation, batches, min_expert_tokens)
        if isinstance(allocation, Owl):
            clock.lap("allocate")
        loop = _Loop(method, patterns, compensation, propagation, min_expert_tokens, sample, clock, known)
        reporter = _Reporter(len(blocks), on_block, lag=1 if model.device.type == "cuda" else 0)
        with reporter:
            for block in blocks:
                with block.loaded(changed=True):
                    reports = loop.prune(block, batches, is_last=block is blocks[-1])
                give_back()
                reporter.add(block, reports)
    if streamer is not None:
        streamer.settle()
        clock.lap("propagate")
    return clock.seconds


def automatic_batch_size(seq_len: int, device: torch.device) -> int:
    """As many windows as keep the device busy: more take more memory, on a CPU more time, too, and change nothing."""
    return max(1, (16384 if device.type == "cuda" else 1024) // seq_len)


def statistics_needed(method: Method, compensation: Compensation | None) -> StatisticsKind:
    """The input statistics that the method and the compensation read."""
    return max(method.needs, compensation.needs if compensation is not None else StatisticsKind.NONE)


def sampled_rows(compensation: Compensation | None) -> int:
    """How many rows of each input are kept: for the output error, and for the compensation."""
    return max(SAMPLED_TOKENS, compensation.samples if compensation is not None else 0)


def _sampled(windows: Tensor, mine: slice, seed: int, count: int) -> Tensor:
    """Numbers of the sampled tokens among this process's windows; together the processes sample what one would."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(windows.numel(), generator=generator)[:count].sort().values
    first, last = mine.start * windows.shape[1], mine.stop * windows.shape[1]
    return sample[(sample >= first) & (sample < last)] - first


class _Reporter:
    """Hands each block's reports to ``on_block``, ``lag`` blocks late: reading a GPU's numbers waits for the block."""

    def __init__(self, blocks: int, on_block: OnBlock | None, lag: int):
        self._blocks, self._on_block, self._lag = blocks, on_block, lag
        self._waiting: list[tuple[Block, list[dict[str, Any]]]] = []

    def add(self, block: Block, reports: list[dict[str, Any]]) -> None:
        if self._lag:
            _send(reports)
        self._waiting.append((block, reports))
        self._hand_over(self._lag)

    def _hand_over(self, left: int) -> None:
        while len(self._waiting) > left:
            block, reports = self._waiting.pop(0)
            numbers = [_numbers(report) for report in reports]
            known = {report["layer"]: report for part in gathered(numbers) for report in part}
            if self._on_block is not None:
                self._on_block(block.index, self._blocks, [known[layer.name] for layer in block.layers])

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None or size() == 1:  # after an error the other processes can't be asked
            self._hand_over(0)


@dataclass
class _Loop:
    """What pruning one block takes; the fields are those of ``prune``."""

    method: Method
    patterns: dict[str, Pattern]
    compensation: Compensation | None
    propagation: str
    min_expert_tokens: int
    sample: Tensor
    clock: Clock
    known: DenseStatistics | None

    def prune(self, block: Block, batches: list[Batch], is_last: bool) -> list[dict[str, Any]]:
        """Prune the block and take the windows through it; reports of the layers that this process solved."""
        reports: list[dict[str, Any]] = []
        if self.propagation == "sequential":
            propagated = self._in_lockstep(block, batches, reports)
        else:
            propagated = self.propagation == "dense"
            self._solve(block, block.layers, self._observe(block, batches, propagated), reports)
        self.clock.lap("observe")
        if not propagated and not is_last:  # the last block's output feeds no other
            advance(block, batches)
        self.clock.lap("propagate")
        return reports

    def _observe(self, block: Block, batches: list[Batch], propagated: bool) -> Mapping[str, InputStatistics]:
        known = self.known
        if known is not None and block.index in known.blocks:
            return known.blocks[block.index]
        kind = statistics_needed(self.method, self.compensation) if known is None else known.kind
        statistics = observe(block, batches, kind, self.sample, propagated, self.min_expert_tokens)
        if known is not None:
            known.blocks[block.index] = statistics
        return statistics

    def _in_lockstep(self, block: Block, batches: list[Batch], reports: list[dict[str, Any]]) -> bool:
        """Prune each layer once all windows have come to it; whether the batches hold the pruned block's outputs then.

        Experts are pruned after the block's run, together: those that few tokens reach need the statistics of all.
        """
        experts = [layer for layer in block.layers if layer.stack is not None]
        collector = Collector(block, statistics_needed(self.method, self.compensation), self.sample)

        def solve(layer: Layer) -> None:
            self._solve(block, [layer], {layer.name: collector.complete(layer)}, reports)

        run_in_lockstep(block, batches, collector, solve, advance=not experts)
        self._solve(block, experts, collector.finished(self.min_expert_tokens), reports)
        return not experts

    def _solve(
        self,
        block: Block,
        layers: list[Layer],
        statistics: Mapping[str, InputStatistics],
        reports: list[dict[str, Any]],
    ) -> None:
        """Prune layers, each in one of the processes, which sends it to the others."""
        self.clock.lap("observe")
        solvers = owners([layer.weights * layer.in_features**0.5 for layer in layers])
        for layer, solver in zip(layers, solvers, strict=True):
            if solver == rank():
                pattern = self.patterns[block.full(layer)]
                known = statistics[layer.name]
                reports.append(_prune_layer(block, layer, known, self.method, pattern, self.compensation))
        for layer, solver in zip(layers, solvers, strict=True):
            spread(layer.stored, solver)
        self.clock.lap("solve")


def _prune_layer(
    block: Block,
    layer: Layer,
    statistics: InputStatistics,
    method: Method,
    pattern: Pattern,
    compensation: Compensation | None,
) -> dict[str, Any]:
    """Prune one layer in place; returns its report, with single numbers still as tensors."""
    stop = stopwatch(layer.parameter.device)
    dense = layer.read()
    try:
        weight, keep, report = method.solve(dense, statistics, pattern)
    except ValueError as error:
        raise ModelError(f"layer {layer.name} of block {block.index} can't be pruned: {error}") from error
    if compensation is not None:
        weight, changes = compensation.apply(dense, weight, keep, statistics)
        report = report | changes
    layer.write(weight)
    if "relative_output_error" not in report:  # a compensation that fits to outputs judges itself
        (report["relative_output_error"],) = output_errors(dense, [weight], statistics.rows)
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
        "sparsity": 1 - _nonzero(layer.stored) / layer.weights,
        "calibration_tokens": statistics.own_count,
        "pooled_statistics": statistics.is_pooled,
    }


def _nonzero(weight: Tensor) -> int | Tensor:
    if weight.device.type == "cpu":  # NumPy counts six times as fast there
        return int(np.count_nonzero((weight != 0).numpy()))
    return weight.count_nonzero().double()


def _send(reports: list[dict[str, Any]]) -> None:
    """Copy the reports' tensors from the GPU together, without waiting; put functions that wait in their place."""
    places = [(report, key) for report in reports for key, value in report.items() if isinstance(value, Tensor)]
    if not places:
        return
    numbers = torch.stack([report[key].detach().double().reshape(()) for report, key in places])
    host = torch.empty(len(places), dtype=torch.float64, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    copied = torch.cuda.current_stream(numbers.device).record_event()

    def arrived(index: int) -> Callable[[], float]:
        def number() -> float:
            copied.synchronize()
            return host[index].item()

        return number

    for index, (report, key) in enumerate(places):
        report[key] = arrived(index)


def _numbers(report: dict[str, Any]) -> dict[str, Any]:
    """The report with Python numbers; None where there is none, as a ratio to the energy of zeros.

    Raises:
        ModelError: the score was not finite.
    """
    numbers = {key: value() if callable(value) else value for key, value in report.items()}
    numbers = {key: value.item() if isinstance(value, Tensor) else value for key, value in numbers.items()}
    if math.isnan(numbers.get("score_mean", 0.0)):  # a GPU was not waited for when it was selected by
        raise ModelError(f"layer {report['layer']} of block {report['block']} can't be pruned: {NOT_FINITE}")
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in numbers.items()}
