"""The block loop: observe → solve → refine → compensate → replace → propagate (paper, Algorithm 1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.core.finite import check_finite
from statprune.core.output_errors import output_errors
from statprune.core.patterns import Pattern
from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.coverage import measure_coverage
from statprune.model.loading import LoadedModel
from statprune.model.matrix import Block, PrunableMatrix
from statprune.pruning.allocation import check_pattern, matrix_patterns
from statprune.pruning.report import (
    MatrixIdentity,
    MatrixReport,
    PendingBlock,
    PendingReport,
    count_nonzero,
    experts_with_pooled_statistics,
    experts_without_tokens,
)
from statprune.pruning.spec import Calibration, OnBlock, Propagation, PruneResult, PruneRuntime, PruneSpec
from statprune.system.distributed import assign_owners, broadcast, gathered, own_part, rank, size, start
from statprune.system.malloc import release_free_memory, return_freed_blocks
from statprune.system.timing import Clock, Stopwatch
from statprune.walk.activations import hidden_store
from statprune.walk.batches import Batch, advance, capture
from statprune.walk.collect import Collector, observe
from statprune.walk.discover import eager_experts, find_blocks
from statprune.walk.lockstep import run_in_lockstep

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    """
    runtime = runtime or PruneRuntime()
    network = model.model if isinstance(model, LoadedModel) else model
    start(network.device)
    blocks = list(blocks) if blocks is not None else find_blocks(model, windows)
    check_pattern(blocks, spec.pattern, spec.allocation)
    if len(windows) < size():
        raise ModelError(f"{len(windows)} calibration windows can't be split over {size()} processes; start fewer")
    streamer = blocks[0].streamer
    if streamer is None:
        return_freed_blocks(5 * 2**20, keep_at_most=2**26)  # chunks of matrices are smaller
    calibration = _Calibration(network, blocks, windows, spec, runtime)
    clock = Clock(network.device)
    with eager_experts(network):
        batches = calibration.captured() if calibration.needs_batches else []
        clock.lap("calibrate")
        patterns = matrix_patterns(blocks, spec.pattern, spec.allocation, lambda: calibration.observed(batches))
        if spec.allocation is not None and spec.allocation.needs_forward:
            clock.lap("allocate")
        loop = _Loop(spec, patterns, calibration.sample_index, calibration.collected, clock)
        with _Reporter(len(blocks), runtime.on_block, lag=1 if network.device.type == "cuda" else 0) as reporter:
            for block in blocks:
                with block.loaded(changed=True):
                    pending = loop.prune(block, batches, is_last=block is blocks[-1])
                release_free_memory()
                reporter.add(block, pending)
    if streamer is not None:
        streamer.settle()
        clock.lap("propagate")
    return _result(clock, reporter.reports, blocks, windows, spec)


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


def own_sample(windows: Tensor, rows: int, seed: int) -> Tensor:
    """Sorted numbers of sampled tokens among this process's windows; all processes sample what one alone would.

    Args:
        windows: token ids of all processes, (samples, seq_len).
        rows: how many tokens are sampled in all.
        seed: of the generator that draws them.
    """
    order = torch.randperm(windows.numel(), generator=torch.Generator().manual_seed(seed))
    sample = order[:rows].sort().values
    part, length = own_part(len(windows)), windows.shape[1]
    first, last = part.start * length, part.stop * length
    return sample[(sample >= first) & (sample < last)] - first


def automatic_batch_size(seq_len: int, device: torch.device) -> int:
    """As many windows as keep the device busy; more take more memory, on a CPU also more time, and change nothing."""
    return max(1, (16384 if device.type == "cuda" else 1024) // seq_len)


@dataclass(frozen=True)
class _Calibration:
    """The calibration windows of one call of ``prune``, and what is observed of the dense model with them."""

    model: "PreTrainedModel"
    blocks: Sequence[Block]
    windows: Tensor
    spec: PruneSpec
    runtime: PruneRuntime

    @property
    def collected(self) -> DenseStatistics | None:
        """Statistics of the dense model that this call uses or fills."""
        return self.runtime.statistics if self.spec.propagation is Propagation.dense else None

    @property
    def needs_batches(self) -> bool:
        """Whether windows have to go through the blocks: not where all statistics are collected already."""
        is_collected = self.collected is not None and bool(self.collected.blocks)
        return not is_collected or (self.spec.allocation is not None and self.spec.allocation.needs_forward)

    @property
    def sample_index(self) -> Tensor:
        """Numbers of the sampled tokens among this process's windows; all processes sample what one alone would."""
        return own_sample(self.windows, self.spec.sampled_rows, self.spec.seed)

    def captured(self) -> list[Batch]:
        """This process's windows at the first block."""
        batch_size = self.runtime.batch_size or automatic_batch_size(self.windows.shape[1], self.model.device)
        store = hidden_store(self.runtime.placement, self.runtime.folder)
        return capture(self.model, list(self.blocks), self.windows[own_part(len(self.windows))], batch_size, store)

    def observed(self, batches: Sequence[Batch]) -> Iterator[tuple[Block, Mapping[str, InputStatistics]]]:
        """Moments of the dense blocks' inputs, block by block; ``batches`` stay as they are."""
        copies = [batch.copy() for batch in batches]
        for block in self.blocks:
            with block.loaded():
                kind, experts = StatisticsKind.MOMENTS, self.spec.min_expert_tokens
                yield block, observe(block, copies, kind, None, advance=True, min_expert_tokens=experts)


class _Reporter:
    """Collects the blocks' reports and hands them to ``on_block``, ``lag`` blocks late.

    Reading a GPU's numbers at once would wait for the block.
    """

    def __init__(self, blocks: int, on_block: OnBlock | None, lag: int):
        self.reports: list[MatrixReport] = []
        self._blocks, self._on_block, self._lag = blocks, on_block, lag
        self._waiting: list[tuple[Block, PendingBlock]] = []

    def add(self, block: Block, reports: Sequence[PendingReport]) -> None:
        """A block was handed to the device."""
        self._waiting.append((block, PendingBlock(reports)))
        self._hand_over(self._lag)

    def _hand_over(self, still_waiting: int) -> None:
        while len(self._waiting) > still_waiting:
            block, pending = self._waiting.pop(0)
            by_name = {report.name: report for part in gathered(pending.finished()) for report in part}
            reports = [by_name[matrix.name] for matrix in block.matrices]
            self.reports += reports
            if self._on_block is not None:
                self._on_block(block.index, self._blocks, reports)

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or size() == 1:  # after an error the other processes can't be asked
            self._hand_over(0)


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

    def _observe(self, block: Block, batches: Sequence[Batch], advance: bool) -> Mapping[str, InputStatistics]:
        collected = self.collected
        if collected is not None and block.index in collected.blocks:
            return collected.blocks[block.index]
        kind = self.spec.statistics_kind if collected is None else collected.kind
        statistics = observe(block, batches, kind, self.sample_index, advance, self.spec.min_expert_tokens)
        if collected is not None:
            collected.blocks[block.index] = statistics
        return statistics

    def _prune_in_lockstep(self, block: Block, batches: list[Batch], reports: list[PendingReport]) -> bool:
        """Prune each matrix once all windows have reached it; whether the batches then hold the pruned block's outputs.

        Experts are pruned after the block's run, together: those that few tokens reach need the statistics of all.
        """
        experts = [matrix for matrix in block.matrices if matrix.stack is not None]
        collector = Collector(block, self.spec.statistics_kind, self.sample_index)

        def solve(matrix: PrunableMatrix) -> None:
            self._solve(block, [matrix], {matrix.name: collector.complete(matrix)}, reports)

        run_in_lockstep(batches, collector, solve, advance=not experts)
        self._solve(block, experts, collector.finished(self.spec.min_expert_tokens), reports)
        return not experts

    def _solve(
        self,
        block: Block,
        matrices: Sequence[PrunableMatrix],
        statistics: Mapping[str, InputStatistics],
        reports: list[PendingReport],
    ) -> None:
        """Prune matrices, each in one of the processes, which sends it to the others."""
        self.clock.lap("observe")
        owners = assign_owners([matrix.weights * matrix.in_features**0.5 for matrix in matrices])
        for matrix, owner in zip(matrices, owners, strict=True):
            if owner == rank():
                pattern = self.patterns[block.full_name(matrix)]
                reports.append(_prune_matrix(block, matrix, statistics[matrix.name], pattern, self.spec))
        for matrix, owner in zip(matrices, owners, strict=True):
            broadcast(matrix.stored, owner)
        self.clock.lap("solve")


def _prune_matrix(
    block: Block, matrix: PrunableMatrix, statistics: InputStatistics, pattern: Pattern, spec: PruneSpec
) -> PendingReport:
    """Prune one matrix in place."""
    stopwatch = Stopwatch(matrix.parameter.device)
    dense = matrix.read()
    try:
        check_finite(dense, statistics)
        solution = spec.method.solve(dense, statistics, pattern)
        numbers = dict(solution.diagnostics)
        if spec.refinement is not None:
            solution = spec.refinement.refine(dense, solution, statistics, pattern)
            numbers |= solution.diagnostics
        weight = solution.weight
        if spec.compensation is not None:
            weight, changes = spec.compensation.apply(dense, weight, solution.keep, statistics)
            numbers |= changes
    except ValueError as error:
        raise ModelError(f"layer {matrix.name} of block {block.index} can't be pruned: {error}") from error
    matrix.write(weight)
    if "relative_output_error" not in numbers:  # a compensation that fits the outputs judges itself
        (numbers["relative_output_error"],) = output_errors(dense, [weight], statistics.rows)
    numbers["sparsity"] = 1 - count_nonzero(matrix.stored) / matrix.weights
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
    return PendingReport(identity, numbers, stopwatch)
