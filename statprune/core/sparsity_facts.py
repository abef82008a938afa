"""What can be counted of one matrix's zeros: how many, in which N:M patterns, in which whole rows and columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GROUPS = (4, 8, 16, 32)  # of N:M patterns that are looked for


@dataclass(frozen=True, order=True)
class HeldPattern:
    """An N:M pattern that every group of a matrix satisfies.

    Attributes:
        keep: most weights of a group that are not zero.
        of: size of a group.
    """

    keep: int
    of: int

    def implies(self, other: "HeldPattern") -> bool:
        """Whether the other holds wherever this one does: its groups are made of this one's."""
        return other.of % self.of == 0 and self.keep * (other.of // self.of) <= other.keep

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"


@dataclass(frozen=True)
class ZeroFacts:
    """What is counted of one matrix as it is stored, (rows, columns), or of a stack of them.

    Attributes:
        weights: how many there are.
        zeros: how many of them are exactly zero.
        zero_rows: rows without any other weight; of a stack, those of each matrix.
        zero_columns: columns without any other weight; of a stack, those of each matrix.
        along_rows: N:M patterns that groups of consecutive entries of a row hold: of a Linear's inputs.
        along_columns: those that groups of consecutive entries of a column hold.
        not_finite: entries that are NaN or infinite.
        density_of_rows: share of weights that are not zero in rows that have any.
        density_of_columns: share of weights that are not zero in columns that have any.
    """

    weights: int
    zeros: int
    zero_rows: int
    zero_columns: int
    along_rows: tuple[HeldPattern, ...] = ()
    along_columns: tuple[HeldPattern, ...] = ()
    not_finite: int = 0
    density_of_rows: float = 0.0
    density_of_columns: float = 0.0


@dataclass(frozen=True)
class ChangeFacts:
    """What differs between one matrix and its dense original.

    Attributes:
        pruned: weights that are zero now and were not.
        refilled: weights that were zero and are not now.
        updated: weights that are zero neither before nor now and have another value.
        kept: weights that are zero neither before nor now.
        relative_change: ‖W − Ŵ‖ / ‖W‖ over all weights; None where W is zero, and Ŵ is not.
        relative_update: the same over the kept weights.
    """

    pruned: int
    refilled: int
    updated: int
    kept: int
    relative_change: float | None
    relative_update: float | None


def zero_facts(weight: Tensor) -> ZeroFacts:
    """Count a matrix, or each matrix of a stack.

    Args:
        weight: (rows, columns) or (…, rows, columns) of any floating dtype that torch can compare. Where one of the
            last two dimensions is 1, as in the kernels of a convolution, all but the last are taken for rows.
    """
    is_stack = weight.ndim > 2 and min(weight.shape[-2:]) > 1
    nonzero = (weight != 0).reshape((-1, *weight.shape[-2:]) if is_stack else (1, -1, weight.shape[-1]))
    kept, (_, rows, columns) = int(nonzero.sum()), nonzero.shape
    living_rows, living_columns = int(nonzero.any(2).sum()), int(nonzero.any(1).sum())
    has_zeros = kept < weight.numel()
    return ZeroFacts(
        weights=weight.numel(),
        zeros=weight.numel() - kept,
        zero_rows=len(nonzero) * rows - living_rows,
        zero_columns=len(nonzero) * columns - living_columns,
        along_rows=tuple(_held(nonzero)) if has_zeros else (),
        along_columns=tuple(_held(nonzero.transpose(1, 2))) if has_zeros else (),
        not_finite=count_not_finite(weight),
        density_of_rows=kept / max(living_rows * columns, 1),
        density_of_columns=kept / max(living_columns * rows, 1),
    )


def count_not_finite(values: Tensor) -> int:
    """How many values are NaN or infinite.

    Args:
        values: of any shape and of any floating dtype that torch can convert.
    """
    wide = values.float() if values.dtype.itemsize == 1 else values  # torch does not look for infinity in most float8
    return int((~wide.isfinite()).sum())


def shared_patterns(facts: Iterable[ZeroFacts], direction: str) -> list[HeldPattern]:
    """The tightest N:M patterns that all of some matrices hold.

    Args:
        facts: of the matrices; those that are all zero hold any pattern.
        direction: ``along_rows`` or ``along_columns``.
    """
    held = [getattr(own, direction) for own in facts if own.zeros < own.weights]
    return list(_tightest((_shared_keep(held, of), of) for of in GROUPS)) if held else []


def change_facts(weight: Tensor, dense: Tensor) -> ChangeFacts:
    """Compare a matrix with its original of the same shape; norms are taken in float64."""
    is_kept, was_kept = weight != 0, dense != 0
    both = is_kept & was_kept
    own, original = weight.double(), dense.double()
    return ChangeFacts(
        pruned=int((was_kept & ~is_kept).sum()),
        refilled=int((is_kept & ~was_kept).sum()),
        updated=int((both & (own != original)).sum()),
        kept=int(both.sum()),
        relative_change=_ratio(own - original, original),
        relative_update=_ratio((own - original)[both], original[both]),
    )


def no_change(facts: ZeroFacts) -> ChangeFacts:
    """What ``change_facts`` says of a matrix that is its original, but 0 of one that is zero."""
    return ChangeFacts(0, 0, 0, facts.weights - facts.zeros, relative_change=0.0, relative_update=0.0)


def broken_groups(weight: Tensor, keep: int, of: int) -> int:
    """How many groups of ``of`` consecutive entries of a row have more than ``keep`` that are not zero.

    Args:
        weight: (rows, columns); columns that are left over at the end of a row make a group of their own.
        keep: most entries of a group that are not zero.
        of: size of a group.
    """
    nonzero = (weight != 0).to(torch.int32)
    padded = torch.nn.functional.pad(nonzero, (0, -nonzero.shape[1] % of))
    return int((padded.view(len(padded), -1, of).sum(2) > keep).sum())


def _held(nonzero: Tensor) -> Iterator[HeldPattern]:
    """Patterns along the last dimension, without those that another one implies and without an empty matrix's."""
    sizes = [of for of in GROUPS if nonzero.shape[-1] % of == 0 and nonzero.numel()]
    return _tightest((int(nonzero.reshape(-1, of).sum(1).max()), of) for of in sizes)


def _tightest(found: Iterable[tuple[int, int]]) -> Iterator[HeldPattern]:
    """Of most weights in groups, by size of a group, those that say something and that no smaller group's implies."""
    kept: list[HeldPattern] = []
    for keep, of in found:
        own = HeldPattern(keep, of)
        if 0 < keep < of and not any(other.implies(own) for other in kept):
            kept.append(own)
            yield own


def _shared_keep(held: Iterable[Iterable[HeldPattern]], of: int) -> int:
    """How many weights of a group of this size are not zero at most in any of some matrices, by what each holds."""
    return max(
        min((own.keep * (of // own.of) for own in patterns if of % own.of == 0), default=of) for patterns in held
    )


def _ratio(difference: Tensor, original: Tensor) -> float | None:
    norm = float(torch.linalg.vector_norm(original))
    return float(torch.linalg.vector_norm(difference)) / norm if norm > 0 else None
