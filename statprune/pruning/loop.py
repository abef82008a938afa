"""The block loop: observe → solve → refine → compensate → replace → propagate (paper, Algorithm 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.core.output_errors import error_without_and_with_bias, output_errors
from statprune.core.patterns import Pattern
from statprune.core.solution import Diagnostics
from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind
from statprune.errors import Interrupted, ModelError
from statprune.model.coverage import measure_coverage
from statprune.model.loading import LoadedModel
from statprune.model.matrix import Block, PrunableMatrix
from statprune.pruning.allocation import check_pattern, matrix_patterns
from statprune.pruning.calibration import CalibrationPass
from statprune.pruning.checkpoint import FinishedBlock, PruneCheckpoint, closing
from statprune.pruning.report import (
    MatrixIdentity,
    MatrixReport,
    PendingReport,
    experts_with_pooled_statistics,
    experts_without_tokens,
    stored_sparsity,
)
from statprune.pruning.reporter import Reporter
from statprune.pruning.solving import solved
from statprune.pruning.spec import Calibration, Propagation, PruneResult, PruneRuntime, PruneSpec
from statprune.system.devices import full_float32
from statprune.system.distributed import assign_owners, broadcast, gathered, rank, size, start
from statprune.system.malloc import RETURNED_AT_ONCE, release_free_memory, return_freed_blocks
from statprune.system.timing import Clock, Stopwatch
from statprune.walk.batches import Batch, advance
from statprune.walk.collect import Collector, observe
from statprune.walk.discover import eager_experts, find_blocks
from statprune.walk.lockstep import run_in_lockstep

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@full_float32()
@torch.inference_mode(False)
@torch.no_grad()
def prune(
    model: "LoadedModel | PreTrainedModel",
    windows: Tensor,
    spec: PruneSpec,
    runtime: PruneRuntime | None = None,
    blocks: Sequence[Block] | None = None,
) -> PruneResult:
    """Prune the model's decoder blocks in place.

    Args:
        model: a causal language model; one whose blocks are streamed has to be a ``LoadedModel``.
        windows: calibration token ids, (samples, seq_len).
        spec: what to do.
        runtime: how to run; None: with the defaults.
        blocks: from ``find_blocks``, where some matrices are to be left dense; None: find them.

    Raises:
        ModelError: the model can't be walked, or the pattern does not fit a matrix: nothing was changed. Or a matrix
            can't be solved, since its inputs or weights are not finite: the blocks before it are pruned.
        Interrupted: the runtime asked to stop after a block.
    """
    runtime = runtime or PruneRuntime()
    network = model.model if isinstance(model, LoadedModel) else model
    start(network.device)
    blocks = list(blocks) if blocks is not None else find_blocks(model, windows)
    check_pattern(blocks, spec.pattern, spec.allocation)
    spec.check_names([block.full_name(matrix) for block in blocks for matrix in block.matrices])
    if len(windows) < size():
        raise ModelError(f"{len(windows)} calibration windows can't be split over {size()} processes; start fewer")
    streamer = blocks[0].streamer
    if streamer is None:
        return_freed_blocks(RETURNED_AT_ONCE, keep_at_most=2**26)  # chunks of matrices are smaller
    checkpoint = runtime.checkpoint
    calibration = CalibrationPass(network, blocks, windows, spec, runtime)
    clock = Clock(network.device, checkpoint.finished[-1].seconds if checkpoint.finished else None)
    with eager_experts(network), closing(checkpoint):
        batches = calibration.captured() if calibration.needs_batches else []
        clock.lap("calibrate")
        ratios = calibration.ratios(batches)
        if spec.allocation is not None and (spec.allocation.needs_forward or spec.allocation.reads_weights):
            clock.lap("allocate")
        checkpoint.begin(ratios)
        patterns = matrix_patterns(blocks, spec.pattern, ratios)
        loop = _Loop(spec, patterns, calibration.sample_index, calibration.collected, clock)
        reports = _prune_blocks(loop, blocks, batches, runtime)
    if streamer is not None:
        streamer.settle()
        clock.lap("propagate")
    return _result(clock, reports, blocks, windows, spec)


def _prune_blocks(
    loop: "_Loop", blocks: Sequence[Block], batches: list[Batch], runtime: PruneRuntime
) -> list[MatrixReport]:
    """Take the windows through all blocks, and prune those that no earlier attempt has pruned.

    Raises:
        Interrupted: the runtime asked to stop; the blocks so far are handed to its checkpoint.
    """
    checkpoint, clock = runtime.checkpoint, loop.clock

    def save(block: Block, taken: object, reports: list[MatrixReport]) -> None:
        checkpoint.save(block, taken, FinishedBlock(tuple(reports), clock.so_far))

    lag = 1 if clock.device.type == "cuda" else 0
    with Reporter(len(blocks), save, runtime.on_block, lag) as reporter:
        for index, block in enumerate(blocks):
            is_last = index == len(blocks) - 1
            if index < len(checkpoint.finished):
                loop.take_up(block, batches, checkpoint, is_last)
                reporter.add_finished(block, checkpoint.finished[index])
                continue
            with block.loaded(changed=True):
                pending = loop.prune(block, batches, is_last)
                taken = checkpoint.take(block)
            release_free_memory()
            reporter.add(block, pending, taken)
            _stop_if_asked(runtime)
    return reporter.reports


def _stop_if_asked(runtime: PruneRuntime) -> None:
    """Raise Interrupted where a signal asked any of the processes to stop."""
    if runtime.should_stop is None:
        return
    asked = [number for number in gathered(runtime.should_stop()) if number is not None]
    if asked:
        raise Interrupted(asked[0])


def _result(
    clock: Clock, reports: Sequence[MatrixReport], blocks: Sequence[Block], windows: Tensor, spec: PruneSpec
) -> PruneResult:
    coverage = replace(
        measure_coverage(blocks),
        experts_with_pooled_statistics=experts_with_pooled_statistics(reports),
        experts_without_tokens=experts_without_tokens(reports),
    )
    samples, seq_len = windows.shape
    return PruneResult(clock.seconds, tuple(reports), coverage, spec, Calibration(samples, seq_len, spec.seed))


@dataclass(frozen=True)
class _Loop:
    """What pruning one block takes.

    Attributes:
        spec: what to do.
        patterns: each matrix's pattern, by full name.
        sample_index: numbers of the sampled tokens among this process's windows.
        collected: statistics of the dense model, to be used or filled; None: observe each block anew.
        clock: takes the time.
    """

    spec: PruneSpec
    patterns: Mapping[str, Pattern]
    sample_index: Tensor
    collected: DenseStatistics | None
    clock: Clock

    def prune(self, block: Block, batches: list[Batch], is_last: bool) -> list[PendingReport]:
        """Prune the block and take the windows through it; reports of the matrices that this process solved."""
        reports: list[PendingReport] = []
        if self.spec.propagation is Propagation.sequential:
            is_propagated = self._prune_in_lockstep(block, batches, reports)
        else:
            is_propagated = self.spec.propagation is Propagation.dense
            self._solve(block, block.matrices, self._observe(block, batches, is_propagated), reports)
        self.clock.lap("observe")
        if not is_propagated and not is_last:  # the last block's output feeds no other
            advance(block, batches)
        self.clock.lap("propagate")
        return reports

    def take_up(self, block: Block, batches: list[Batch], checkpoint: PruneCheckpoint, is_last: bool) -> None:
        """Put a block in place that an earlier attempt pruned, and take the windows through it.

        They go through the block that they went through then: the dense one where inputs are the dense model's.
        """
        sees_dense = self.spec.propagation is Propagation.dense
        if not sees_dense:
            checkpoint.restore(block)
        if batches and not is_last:
            with block.loaded():
                advance(block, batches)
        if sees_dense:
            checkpoint.restore(block)
        release_free_memory()
        self.clock.lap("propagate")

    def _observe(self, block: Block, batches: Sequence[Batch], advance: bool) -> dict[str, InputStatistics]:
        collected = self.collected
        if collected is not None and block.index in collected.blocks:
            return dict(collected.blocks[block.index])
        kind = self.spec.statistics_kind if collected is None else collected.kind
        experts, precision = self.spec.min_expert_tokens, self.spec.gram_precision
        statistics = observe(block, batches, kind, self.sample_index, advance, experts, precision)
        if collected is not None:
            collected.blocks[block.index] = dict(statistics)
        return statistics

    def _prune_in_lockstep(self, block: Block, batches: list[Batch], reports: list[PendingReport]) -> bool:
        """Prune each matrix once all windows have reached it; whether the batches then hold the pruned block's outputs.

        Experts are pruned after the block's run, together: those that few tokens reach need the statistics of all.
        """
        experts = [matrix for matrix in block.matrices if matrix.stack is not None]
        collector = Collector(block, self.spec.statistics_kind, self.sample_index, self.spec.gram_precision)

        def solve(matrix: PrunableMatrix) -> None:
            self._solve(block, [matrix], {matrix.name: collector.complete(matrix)}, reports)

        run_in_lockstep(batches, collector, solve, advance=not experts)
        self._solve(block, experts, collector.finished(self.spec.min_expert_tokens), reports)
        return not experts

    def _solve(
        self,
        block: Block,
        matrices: Sequence[PrunableMatrix],
        statistics: dict[str, InputStatistics],
        reports: list[PendingReport],
    ) -> None:
        """Prune matrices, each in one of the processes, which sends it to the others; takes their statistics out."""
        self.clock.lap("observe")
        self._release()
        owners = assign_owners([matrix.weights * matrix.in_features**0.5 for matrix in matrices])
        for matrix, owner in zip(matrices, owners, strict=True):
            inputs = statistics.pop(matrix.name)  # a Gram matrix and its factor are gone once no matrix needs them
            if owner == rank():
                pattern = self.patterns[block.full_name(matrix)]
                reports.append(_prune_matrix(block, matrix, inputs, pattern, self.spec))
            del inputs
            self._release()
        for matrix, owner in zip(matrices, owners, strict=True):
            broadcast(matrix.stored, owner)
        self.clock.lap("solve")

    def _release(self) -> None:
        """Return what a forward or a matrix left free on a CPU: it lies in pieces that what follows can't use."""
        if self.clock.device.type == "cpu":
            release_free_memory()


def _output_errors(dense: Tensor, weight: Tensor, statistics: InputStatistics, spec: PruneSpec) -> Diagnostics:
    """The relative output error on sampled rows, and, where inputs' means are known, what a bias would leave."""
    rows = spec.method.unseen(statistics.rows)
    if spec.statistics_kind < StatisticsKind.MOMENTS:
        return {"relative_output_error": output_errors(dense, [weight], rows)[0]}
    error, with_bias = error_without_and_with_bias(dense, weight, rows, statistics.mean)
    return {"relative_output_error": error, "bias_output_error": with_bias}


def _prune_matrix(
    block: Block, matrix: PrunableMatrix, statistics: InputStatistics, pattern: Pattern, spec: PruneSpec
) -> PendingReport:
    """Prune one matrix in place."""
    stopwatch = Stopwatch(matrix.parameter.device)
    dense = matrix.read()
    try:
        weight, numbers = solved(dense, statistics, pattern, spec.of_matrix(block.full_name(matrix)))
    except ValueError as error:
        raise ModelError(f"layer {matrix.name} of block {block.index} can't be pruned: {error}") from error
    matrix.write(weight)
    if "relative_output_error" not in numbers:  # a compensation that fits the outputs judges itself
        numbers |= _output_errors(dense, weight, statistics, spec)
    numbers["sparsity"] = stored_sparsity(matrix, block.index)
    stopwatch.stop()
    identity = MatrixIdentity(
        block=block.index,
        name=matrix.name,
        expert=matrix.expert,
        out_features=matrix.out_features,
        in_features=matrix.in_features,
        weights=matrix.weights,
        target_sparsity=pattern.target,
        calibration_tokens=statistics.own_count,
        pooled_statistics=statistics.is_pooled,
    )
    return PendingReport(identity, numbers, stopwatch, matrix.stored.dtype)
