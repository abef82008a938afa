"""The calibration windows of one call of ``prune``, and what is observed of the dense model with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind
from statprune.model.matrix import Block
from statprune.pruning.allocation import matrix_ratios
from statprune.pruning.spec import Propagation, PruneRuntime, PruneSpec
from statprune.system.distributed import own_part
from statprune.walk.activations import hidden_store
from statprune.walk.batches import Batch, capture
from statprune.walk.collect import observe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def own_sample(windows: Tensor, rows: int, seed: int) -> Tensor:
    """Sorted numbers of sampled tokens among this process's windows; all processes sample what one alone would.

    Args:
        windows: token ids of all processes, (samples, seq_len).
        rows: how many tokens are sampled in all.
        seed: of the generator that draws them.
    """
    generator = torch.Generator("cpu").manual_seed(seed)  # whatever device tensors are made on by default
    order = torch.randperm(windows.numel(), generator=generator, device="cpu")
    sample = order[:rows].sort().values
    part, length = own_part(len(windows)), windows.shape[1]
    first, last = part.start * length, part.stop * length
    return sample[(sample >= first) & (sample < last)] - first


def automatic_batch_size(seq_len: int, device: torch.device) -> int:
    """As many windows as keep the device busy; more take more memory, on a CPU also more time, and change nothing."""
    return max(1, (16384 if device.type == "cuda" else 1024) // seq_len)


@dataclass(frozen=True)
class CalibrationPass:
    """The calibration windows of one call of ``prune``, and what is observed of the dense model with them."""

    model: "PreTrainedModel"
    blocks: Sequence[Block]
    windows: Tensor
    spec: PruneSpec
    runtime: PruneRuntime

    @property
    def collected(self) -> DenseStatistics | None:
        """Statistics of the dense model that this call uses or fills."""
        statistics = self.runtime.statistics if self.spec.propagation is Propagation.dense else None
        if statistics is not None and not statistics.blocks and self.runtime.checkpoint.finished:
            return None  # they would lack the blocks that are not observed again
        return statistics

    @property
    def needs_batches(self) -> bool:
        """Whether windows have to go through the blocks: not where all statistics are collected already."""
        if len(self.runtime.checkpoint.finished) == len(self.blocks):
            return False
        is_collected = self.collected is not None and bool(self.collected.blocks)
        return not is_collected or self._observes_first

    @property
    def _observes_first(self) -> bool:
        """Whether the allocation wants the windows to go through the dense blocks first."""
        allocation = self.spec.allocation
        return allocation is not None and allocation.needs_forward and self.runtime.checkpoint.ratios is None

    def ratios(self, batches: Sequence[Batch]) -> Mapping[str, float] | None:
        """Of each matrix, as ``matrix_ratios`` has them: those that an earlier attempt kept, or computed."""
        kept = self.runtime.checkpoint.ratios
        if kept is not None:
            return kept
        return matrix_ratios(self.blocks, self.spec.pattern, self.spec.allocation, lambda: self.observed(batches))

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
