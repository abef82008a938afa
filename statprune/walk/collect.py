"""Collect the input statistics of a block's matrices while windows go through it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from statprune.core.gram import EXACT_IN_FLOAT32, GramPrecision
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.matrix import Block, PrunableMatrix
from statprune.system.distributed import gathered, size
from statprune.walk.batches import Batch, in_turn
from statprune.walk.products import Products, Use


def observe(
    block: Block,
    batches: Sequence[Batch],
    kind: StatisticsKind,
    sample_index: Tensor | None,
    advance: bool,
    min_expert_tokens: int = 0,
    precision: GramPrecision = GramPrecision.float32,
) -> dict[str, InputStatistics]:
    """Run the block over all windows and collect each matrix's input statistics.

    Args:
        block: the block.
        batches: the windows; with ``advance`` their hidden states are replaced by the block's outputs.
        kind: what to collect.
        sample_index: token numbers whose input rows are sampled.
        advance: see ``batches``.
        min_expert_tokens: an expert that fewer tokens reach gets the statistics of its whole mixture, or uninformed
            ones where no token reaches any expert of it.
        precision: of the Gram matrices' factors.

    Returns:
        Statistics by the matrix's name; matrices fed the very same tensor get the same object.

    Raises:
        ModelError: a matrix was never used, or shares its input with others only in some batches; or the precision has
            no effect.
    """
    collector = Collector(block, kind, sample_index, precision)
    for batch in in_turn(batches):
        with Products(block.module, collector.view(batch).see):
            output = batch.run(block)
        if advance:
            batch.hidden = output
    return collector.finished(min_expert_tokens)


@dataclass(frozen=True)
class Observation:
    """A product that a collector has taken note of.

    Attributes:
        matrix: that was multiplied.
        first: name of the first matrix that had the very same input; the matrix's own name where none had.
        is_new: the input had not been seen yet.
    """

    matrix: PrunableMatrix
    first: str
    is_new: bool


class Collector:
    """Updates the input statistics of a block's matrices as their products are seen.

    Args:
        block: the block.
        kind: what to collect.
        sample_index: token numbers whose input rows are sampled.
        precision: of the Gram matrices' factors.

    Attributes:
        block: the block.
        statistics: by the matrix's name; matrices fed the very same tensor have the same object, updated once.
    """

    def __init__(
        self,
        block: Block,
        kind: StatisticsKind,
        sample_index: Tensor | None,
        precision: GramPrecision = GramPrecision.float32,
    ):
        self.block = block
        self.statistics: dict[str, InputStatistics] = {}
        self._merged: set[int] = set()
        self._kind, self._sample_index, self._precision = kind, sample_index, precision
        self._matrices = {(matrix.parameter_name, matrix.index): matrix for matrix in block.matrices}

    def view(self, batch: Batch) -> "BatchView":
        """What sees the products of one batch of windows, in its order."""
        return BatchView(self, batch)

    def matrix_of(self, use: Use) -> PrunableMatrix | None:
        """The matrix that is used, if it is to be pruned."""
        return self._matrices.get((use.name, use.index))

    def new_statistics(self, matrix: PrunableMatrix, inputs: Tensor) -> InputStatistics:
        """Empty statistics of an input, which the matrix is the first to multiply.

        Raises:
            ModelError: the precision has no effect on such inputs.
        """
        if self._precision is GramPrecision.tf32 and inputs.dtype in EXACT_IN_FLOAT32:
            dtype = str(inputs.dtype).removeprefix("torch.")
            raise ModelError(
                f"gram_precision=tf32 has no effect on {dtype} inputs, such as those of {matrix.name} in block "
                f"{self.block.index}: their products are exact in float32; leave it out"
            )
        statistics = InputStatistics(
            inputs.shape[-1], self._kind, self._sample_index, inputs.device, precision=self._precision
        )
        statistics.follows_norm = matrix.follows_norm
        return statistics

    def complete(self, matrix: PrunableMatrix) -> InputStatistics:
        """The matrix's statistics once all windows have reached it; in several processes all of them call this."""
        statistics = self.statistics[matrix.name]
        if size() > 1 and id(statistics) not in self._merged:
            self._merged.add(id(statistics))
            statistics.merge_processes()
        return statistics

    def finished(self, min_expert_tokens: int) -> dict[str, InputStatistics]:
        """All statistics once all windows have passed.

        Args:
            min_expert_tokens: experts that fewer tokens reached get the statistics of their mixture.

        Raises:
            ModelError: no token reached a matrix.
        """
        if size() > 1:
            self._align_processes()
        for matrix in self.block.matrices:
            if matrix.name in self.statistics:
                self.complete(matrix)
        _pool_experts(self.block, self.statistics, self._kind, min_expert_tokens)
        return self.statistics

    def _align_processes(self) -> None:
        """Have statistics of the same matrices, shared by the same ones, in processes that saw no token of some."""
        first_name: dict[int, str] = {}
        own = {name: first_name.setdefault(id(value), name) for name, value in self.statistics.items()}
        shared_with: dict[str, str] = {}
        for names in gathered(own):
            shared_with = names | shared_with
        for matrix in self.block.matrices:
            if matrix.name in shared_with and matrix.name not in self.statistics:
                empty = InputStatistics(matrix.in_features, self._kind, None, matrix.parameter.device)
                empty.follows_norm = matrix.follows_norm
                self.statistics[matrix.name] = self.statistics.setdefault(shared_with[matrix.name], empty)


class BatchView:
    """Sees the products of one batch of windows on its way through a block.

    Args:
        collector: of the block.
        batch: the windows.
    """

    def __init__(self, collector: Collector, batch: Batch):
        self._collector, self._batch = collector, batch
        self._seen: dict[object, tuple[StorageWeakRef, InputStatistics]] = {}
        self._updated_by: dict[int, str] = {}

    def see(self, use: Use) -> Observation | None:
        """Update the statistics of the matrix that is used; None where it is not to be pruned or has no input."""
        matrix, inputs = self._collector.matrix_of(use), use.inputs
        if matrix is None or inputs.numel() == 0:
            return None
        statistics = self._collector.statistics
        identity = (inputs.data_ptr(), inputs.shape, inputs.stride(), inputs._version)
        seen = self._seen.get(identity)
        is_first = True
        is_new = seen is None or seen[0].expired()  # memory is used again once its tensor is gone
        if seen is None or is_new:
            own = statistics.get(matrix.name) or self._collector.new_statistics(matrix, inputs)
            seen = self._seen[identity] = (StorageWeakRef(inputs.untyped_storage()), own)
            is_first = self._updated_by.setdefault(id(own), matrix.name) == matrix.name
            is_flat = inputs.ndim == 2 and len(inputs) == self._batch.tokens
            own.update(inputs.unflatten(0, (self._batch.windows, -1)) if is_flat else inputs)
        if statistics.setdefault(matrix.name, seen[1]) is not seen[1] or not is_first:
            raise ModelError(
                f"layer {self._collector.block.full_name(matrix)} shares its input with other layers only at times; "
                "leave it out with model.exclude"
            )
        return Observation(matrix, self._updated_by[id(seen[1])], is_new)


def _pool_experts(
    block: Block, statistics: dict[str, InputStatistics], kind: StatisticsKind, min_expert_tokens: int
) -> None:
    """Give every expert that too few tokens reached the merged statistics of all experts of its mixture."""
    stacks: dict[str, list[PrunableMatrix]] = {}
    for matrix in block.matrices:
        if matrix.stack is not None:
            stacks.setdefault(matrix.stack, []).append(matrix)
        elif matrix.name not in statistics:
            raise ModelError(f"no calibration token reached {block.full_name(matrix)}; leave it out with model.exclude")
    for experts in stacks.values():
        counts = {expert.name: statistics[expert.name].count if expert.name in statistics else 0 for expert in experts}
        too_few = {name: count for name, count in counts.items() if count < max(min_expert_tokens, 1)}
        if not too_few:
            continue
        reached = [statistics[name] for name, count in counts.items() if count]
        if reached:
            pooled = InputStatistics.pooled(reached)
        else:
            pooled = InputStatistics.uninformed(experts[0].in_features, kind, experts[0].parameter.device)
            pooled.follows_norm = experts[0].follows_norm
        statistics |= {name: pooled.shared_by(count) for name, count in too_few.items()}
