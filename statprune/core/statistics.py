"""Streaming statistics of a matrix's inputs: channel moments, Gram matrix, and a sample of rows.

Moments are float64 throughout, so that they do not depend on how tokens are batched: one mask entry that a rounding
error flips in an early block can move a small model's perplexity by half a percent. Batches are merged by Chan, Golub &
LeVeque (1979).
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import torch
from torch import Tensor

from statprune.core.gram import GramPrecision, add_products, mirror
from statprune.core.kernels import has_kernel
from statprune.core.sampled_rows import SampledRows
from statprune.system.distributed import gathered_tensors, sum_over_processes

T = TypeVar("T")

# values converted to float64 at a time: what stays in a CPU's cache; on a GPU, enough to fill it
CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**24}


class StatisticsKind(IntEnum):
    """What a method needs to know of a matrix's input; each kind includes the ones before it."""

    NONE = 0
    MOMENTS = 1
    GRAM = 2


class InputStatistics:
    """Statistics of one input with ``in_features`` channels, over all calibration tokens.

    Args:
        in_features: number of channels.
        kind: what to accumulate besides the sampled rows.
        sample_index: sorted token numbers (0 is the first token seen) whose rows are sampled.
        device: where the accumulators live.
        dtype: precision of the sampled rows and of each window's Gram matrix; sums are always float64.
        precision: of the Gram matrix's factors.

    Attributes:
        count: tokens seen.
        is_pooled: over the tokens of several matrices (``pooled``).
        follows_norm: whether the input is what a norm of the model returned.
    """

    def __init__(
        self,
        in_features: int,
        kind: StatisticsKind = StatisticsKind.MOMENTS,
        sample_index: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        precision: GramPrecision = GramPrecision.float32,
    ):
        self.kind = kind
        self.count = 0
        self.is_pooled = False
        self.follows_norm = False
        self._own_count: int | None = None
        self._dtype, self._precision = dtype, precision
        self._mean = torch.zeros(in_features, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._mean)  # sums of squared deviations from the mean
        self._gram: Tensor | None = None
        if kind >= StatisticsKind.GRAM:
            self._gram = torch.zeros(in_features, in_features, dtype=torch.float64, device=device)
        self._gram_is_whole = True  # False: only its strips on and above the diagonal are up to date
        self._sample_index = sample_index
        # sent once, and not waited for: the numbers stay where they are
        self._sample_on_device = sample_index.to(device, non_blocking=True) if sample_index is not None else None
        self._rows = SampledRows()
        self._derived: dict[Hashable, Any] = {}

    def update(self, inputs: Tensor) -> None:
        """Add a batch of inputs, shape (..., in_features), any floating dtype."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if rows.shape[0] == 0:
            return
        if self._sample_index is not None and self._sample_on_device is not None:
            ends = torch.tensor([self.count, self.count + rows.shape[0]], device="cpu")
            first, last = torch.searchsorted(self._sample_index, ends).tolist()
            if first < last:
                expected = len(self._sample_index) if inputs.ndim == 3 else 0  # an expert sees few of all tokens
                self._rows.append(rows[self._sample_on_device[first:last] - self.count], expected)
        if self.kind >= StatisticsKind.MOMENTS:
            self._add_moments(rows)
        else:
            self.count += rows.shape[0]
        if self._gram is not None:
            self._gram_is_whole = False
            add_products(self._gram, inputs if inputs.ndim == 3 else rows[None], self._dtype, self._precision)

    @classmethod
    def pooled(cls, members: Sequence["InputStatistics"]) -> "InputStatistics":
        """Statistics over the tokens of all ``members``, which have the same channels, kind and precision."""
        first = members[0]
        pool = cls(first._mean.shape[0], first.kind, None, first._mean.device, first._dtype)
        pool.is_pooled = True
        pool.follows_norm = first.follows_norm
        for member in members:
            if member.count:
                pool._merge(member.count, member._mean, member._squares)
            if pool._gram is not None and member._gram is not None:
                pool._gram += member.gram
        pool._rows = SampledRows([part for member in members for part in member._rows.parts])
        return pool

    @classmethod
    def uninformed(cls, in_features: int, kind: StatisticsKind, device: torch.device | str) -> "InputStatistics":
        """Statistics where no token was seen: all channels alike (norm and variance 1, Gram matrix I), ``count`` 0."""
        statistics = cls(in_features, kind, None, device)
        statistics._squares.fill_(1)
        if statistics._gram is not None:
            statistics._gram.fill_diagonal_(1)
        return statistics

    def merge_processes(self) -> None:
        """Add the other processes' statistics of this input; all of them call this and get the same result."""
        own_rows = self.rows
        sizes = torch.tensor([self.count, len(own_rows)], device=self._mean.device)
        counts = [size.tolist() for size in gathered_tensors(sizes)]
        moments = gathered_tensors(torch.stack([self._mean, self._squares]))
        self.count = 0
        self._mean, self._squares = torch.zeros_like(self._mean), torch.zeros_like(self._squares)
        for (count, _), (mean, squares) in zip(counts, moments, strict=True):
            if count:
                self._merge(count, mean, squares)
        if self._gram is not None:
            sum_over_processes(self._gram)
            self._gram_is_whole = False  # others may have added only what is on and above the diagonal
        padded = own_rows.new_zeros(max(rows for _, rows in counts), own_rows.shape[1], dtype=self._dtype)
        padded[: len(own_rows)] = own_rows
        samples = gathered_tensors(padded)
        self._rows = SampledRows([sample[:rows] for sample, (_, rows) in zip(samples, counts, strict=True)])

    def shared_by(self, own_count: int) -> "InputStatistics":
        """The same statistics, for a matrix that ``own_count`` of the tokens reached."""
        shared = copy.copy(self)
        shared._own_count = own_count
        return shared

    def _add_moments(self, rows: Tensor) -> None:
        """Add rows, (tokens, in_features), to the moments."""
        if has_kernel(rows):
            from statprune.core.statistics_triton import shifted_sums

            # near the mean; a window's first token is no example of the others
            shift = self._mean if self.count else rows[len(rows) // 2].to(torch.float64).contiguous()
            total, squares = shifted_sums(rows, shift)
            deviation = total / len(rows)
            self._merge(len(rows), shift + deviation, (squares - total * deviation).clamp_min_(0))
            return
        for chunk in rows.split(max(1, CHUNK_VALUES[rows.device.type] // rows.shape[1])):
            values = chunk.to(torch.float64, copy=True)
            mean = values.mean(0)
            self._merge(len(chunk), mean, values.sub_(mean).square_().sum(0))

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        delta = mean - self._mean
        self._mean += delta * (count / total)
        self._squares += squares + delta.square() * (self.count * count / total)
        self.count = total

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` returned the first time it was called under this key, after all inputs were seen."""
        if key not in self._derived:
            self._derived[key] = compute()
        value: T = self._derived[key]
        return value

    @property
    def own_count(self) -> int:
        """Tokens that reached the matrix itself; ``count`` unless the statistics are pooled or uninformed."""
        return self.count if self._own_count is None else self._own_count

    @property
    def mean(self) -> Tensor:
        """E[x_j], shape (in_features,), float64."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """Population variance E[x_j²] − E[x_j]², shape (in_features,), float64 (paper §3.1)."""
        return self._squares / max(self.count, 1)

    @property
    def norm(self) -> Tensor:
        """‖x_j‖₂ over all tokens, shape (in_features,), float64 (Wanda, Sun et al. 2024)."""
        return (self._squares + self.count * self._mean.square()).sqrt()

    @property
    def gram(self) -> Tensor:
        """Σ x xᵀ over all tokens, shape (in_features, in_features), float64.

        Raises:
            RuntimeError: the statistics were collected without the Gram matrix.
        """
        if self._gram is None:
            raise RuntimeError("these statistics hold no Gram matrix; collect them with StatisticsKind.GRAM")
        if not self._gram_is_whole:
            mirror(self._gram)
            self._gram_is_whole = True
        return self._gram

    @property
    def rows(self) -> Tensor:
        """The sampled input rows, shape (samples, in_features); they are not to be changed."""
        return self._rows.all(len(self._mean), self._dtype, self._mean.device)


@dataclass
class DenseStatistics:
    """Input statistics of a whole model that is not pruned: every method, ratio and pattern can use them.

    Attributes:
        kind: what is collected.
        blocks: by block, the statistics of each matrix by name; empty until a run has collected them.
    """

    kind: StatisticsKind
    blocks: dict[int, dict[str, InputStatistics]] = field(default_factory=dict)
