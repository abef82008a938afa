"""Sparsity patterns: from a score to a keep mask, by partial selection on whole tensors.

Ties: of equal scores, N:M keeps the one with the lowest index, and an unstructured pattern removes evenly spaced ones.
Both rules are the same on every device; the kernel in sparsegpt_triton.py repeats that of N:M, those in
selection_triton.py that of an unstructured pattern.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from statprune.core.kernels import has_kernel
from statprune.system.registry import Registry, subclass_of

NOT_FINITE = "the score holds NaN or infinity; the weights or the inputs are not finite, or too large for it"


class Group(Enum):
    """Which weights compete with each other under an unstructured pattern."""

    row = "row"
    matrix = "matrix"


class Pattern(ABC):
    """A sparsity pattern: a frozen dataclass of its options, which are the keys ``sparsity.*``."""

    @property
    @abstractmethod
    def target(self) -> float:
        """The fraction of weights to remove, before rounding down."""

    @abstractmethod
    def select(self, score: Tensor) -> Tensor:
        """Keep mask (bool) of a score of shape (out_features, in_features); the higher scores are kept.

        The mask has no more and no fewer entries than ``target`` says, whatever the score is.
        """

    def problem(self, in_features: int) -> str | None:
        """Why a matrix with this many inputs can't have the pattern, or None."""
        return None

    def at_ratio(self, ratio: float) -> "Pattern | None":
        """The pattern that removes exactly this fraction of a whole matrix; None where it has one ratio everywhere.

        Args:
            ratio: a whole number of weights over the matrix's weights.
        """
        return None

    def columns(self, out_features: int, first: int, last: int) -> "Pattern":
        """The pattern for columns ``first`` to ``last`` of a matrix that is selected by column blocks."""
        return self

    def crosses(self, block_size: int) -> str | None:
        """Why the pattern can't be selected by blocks of so many columns, or None."""
        return None

    def partial(self, share: float) -> "Pattern":
        """The pattern that removes about this share of what this one removes; itself where it has nothing between.

        Args:
            share: in (0, 1]; with 1 it is the pattern itself.
        """
        return self

    def exchange_span(self, in_features: int) -> int | None:
        """How many consecutive inputs of a row a kept and a pruned weight may change places within.

        None, where the pattern does not say: refinements that exchange weights refuse it then.

        Args:
            in_features: of the matrix; a divisor of it is a group that every row is made of.
        """
        return None


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Remove exactly floor(ratio · size) of the lowest scores in each group.

    Attributes:
        ratio: fraction removed, in [0, 1).
        group: compare within each output row, or over the whole matrix.
        exact: remove floor(ratio · numel) of a matrix even where rows are the groups: evenly spaced rows lose one more.
        is_column_block: the pattern is for one block of columns, which may lose all of its weights.
    """

    ratio: float = 0.5
    group: Group = Group.row
    exact: bool = False
    is_column_block: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float):
            raise ValueError(f"sparsity ratio {self.ratio!r} is no number; give the fraction to remove, such as 0.5")
        if not (0 <= self.ratio < 1 or (self.is_column_block and self.ratio == 1)):
            raise ValueError(f"sparsity ratio {self.ratio} is outside [0, 1); give the fraction to remove, such as 0.5")
        if not isinstance(self.group, Group):
            raise ValueError(f"sparsity group {self.group!r} is none; give Group.row or Group.matrix")

    @property
    def target(self) -> float:
        """The ratio."""
        return self.ratio

    def at_ratio(self, ratio: float) -> "Unstructured":
        """The same with another ratio, of the whole matrix."""
        return replace(self, ratio=ratio, exact=True)

    def select(self, score: Tensor) -> Tensor:
        """Keep mask (bool) of a score of shape (out_features, in_features)."""
        rows, columns = score.shape
        if self.group is Group.matrix:
            return ~smallest(score.reshape(1, -1), round_down(self.ratio * score.numel())).view_as(score)
        if not self.exact:
            return ~smallest(score, round_down(self.ratio * columns))
        total = round_down(self.ratio * score.numel())
        keep = torch.empty_like(score, dtype=torch.bool)
        count, more = divmod(total, rows)
        ends = torch.arange(rows + 1, device=score.device) * total // rows
        order = (ends.diff() > count).to(torch.int8).argsort(stable=True)  # on a GPU, without waiting for it
        for index, lost in ((order[: rows - more], count), (order[rows - more :], count + 1)):
            if len(index):
                keep[index] = ~smallest(score[index], lost)
        return keep

    def partial(self, share: float) -> "Unstructured":
        """The same with this share of the ratio."""
        return replace(self, ratio=share * self.ratio) if share < 1 else self

    def exchange_span(self, in_features: int) -> int:
        """The whole row: its count, and with it the matrix's, stays."""
        return in_features

    def columns(self, out_features: int, first: int, last: int) -> "Unstructured":
        """The ratio for a block of columns, such that all blocks together lose what the matrix loses."""
        rows = 1 if self.group is Group.row and not self.exact else out_features  # rows that are counted together
        before, after = (round_down(self.ratio * rows * column) for column in (first, last))
        return replace(self, ratio=(after - before) / (rows * (last - first)), is_column_block=True)


@dataclass(frozen=True)
class NofM(Pattern):
    """Keep exactly ``keep`` of every ``of`` consecutive inputs of a row (N:M is kept:group).

    Attributes:
        keep: weights kept in a group, 0 < keep < of.
        of: group size; must divide in_features.
    """

    keep: int
    of: int

    def __post_init__(self) -> None:
        if not (isinstance(self.keep, int) and isinstance(self.of, int)):
            raise ValueError(f"N:M sparsity {self.keep!r}:{self.of!r} needs whole numbers, as in NofM(2, 4)")
        if not 0 < self.keep < self.of:
            raise ValueError(f"N:M sparsity {self.keep}:{self.of} needs 0 < N < M; 2:4 keeps 2 of every 4")

    @property
    def target(self) -> float:
        """1 − N/M."""
        return 1 - self.keep / self.of

    def problem(self, in_features: int) -> str | None:
        """A sentence where M does not divide the inputs, else None."""
        if in_features % self.of:
            return f"{in_features} inputs are not divisible by M={self.of}"
        return None

    def crosses(self, block_size: int) -> str | None:
        """Blocks hold whole groups, or a group would cross from one to the next."""
        if block_size % self.of:
            return f"{block_size} is not divisible by M={self.of}; give a multiple of it"
        return None

    def partial(self, share: float) -> "NofM":
        """The same groups, of which this share of what is removed, rounded, and at least one weight, is removed."""
        return replace(self, keep=self.of - max(1, round(share * (self.of - self.keep))))

    def exchange_span(self, in_features: int) -> int:
        """A group."""
        return self.of

    def select(self, score: Tensor) -> Tensor:
        """Keep mask (bool) of a score of shape (out_features, in_features)."""
        rows, columns = score.shape
        _check_finite(score)
        # group position first, so that every comparison runs over contiguous memory
        groups = score.view(rows, columns // self.of, self.of).permute(2, 0, 1).contiguous()
        return self.select_groups(groups).permute(1, 2, 0).reshape(rows, columns)

    def select_groups(self, groups: Tensor) -> Tensor:
        """Keep mask (bool) of finite scores of shape (of, ...), the members of each group along the first dimension."""
        rank = torch.zeros_like(groups, dtype=torch.int16)
        for i in range(self.of):
            is_lower = groups[i] < groups[i + 1 :]
            rank[i + 1 :] += is_lower
            rank[i] += (~is_lower).sum(0, dtype=torch.int16)
        return rank >= self.of - self.keep


OWN_PATTERNS = {"unstructured": f"{__name__}:Unstructured", "n_m": f"{__name__}:NofM"}
PATTERNS: Registry[type[Pattern]] = Registry(
    "pattern", "statprune.patterns", OWN_PATTERNS, subclass_of(Pattern), reserved=("2_4", "4_8")
)


def round_down(count: float) -> int:
    """``count`` rounded down; a product such as 0.7 · 10, stored a hair below 7, is 7."""
    return int(count + max(1e-9, 1e-12 * count))


def smallest(score: Tensor, count: int) -> Tensor:
    """Mask (bool) of the ``count`` smallest entries of every row of ``score``, shape (rows, columns).

    Raises:
        ValueError: the score holds NaN; on a GPU nothing is raised, since checking would wait for it.
    """
    _check_finite(score)
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    if score.dtype is torch.float32 and has_kernel(score):
        from statprune.core.selection_triton import LONGEST, smallest_below, smallest_of_rows

        if score.shape[1] <= LONGEST:
            return smallest_of_rows(score, count)
        if len(score) == 1:
            return smallest_below(score, _kth_smallest(score, count), count)
    threshold = _kth_smallest(score, count)
    if score.is_cuda:
        return _break_ties(score, threshold, count)
    chosen = score <= threshold
    has_ties = chosen.sum(1) > count
    if has_ties.any():
        chosen[has_ties] = _break_ties(score[has_ties], threshold[has_ties], count)
    return chosen


def _break_ties(score: Tensor, threshold: Tensor, count: int) -> Tensor:
    """Mask of the entries below the threshold and as many of those equal to it as make ``count``.

    The latter are evenly spaced: a quantised checkpoint has many equal magnitudes, and taking the first ones would
    thin out one end of the row.
    """
    below, equal = score < threshold, score == threshold
    missing = (count - below.sum(1))[:, None]
    quota = equal.cumsum(1) * missing // equal.sum(1).clamp_min(1)[:, None]
    return below | (equal & (quota.diff(dim=1, prepend=torch.zeros_like(missing)) > 0))


def _kth_smallest(score: Tensor, k: int) -> Tensor:
    """The k-th smallest entry (1 is the smallest) of every row, shape (rows, 1)."""
    if score.device.type == "cpu":
        # NumPy's introselect moves values alone; torch's selection drags 64-bit indices along
        return torch.from_numpy(np.partition(score.numpy(), k - 1, axis=1)[:, k - 1 : k].copy())
    if len(score) < 16:  # a GPU gives each row to a single block of threads; sorting uses all of it for one row
        return score.sort(dim=1).values[:, k - 1 : k]
    return score.kthvalue(k, dim=1, keepdim=True).values


def _check_finite(score: Tensor) -> None:
    # a row's sum is NaN wherever the row holds one; infinities of both signs make one, too, hence the second look
    if not score.is_cuda and score.sum(1).isnan().any() and score.isnan().any():
        raise ValueError(NOT_FINITE)
