"""What can be counted of one matrix's zeros: how many, in which N:M patterns, in which whole rows and columns."""

from collections.abc import Iterator
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
    """What is counted of one matrix as it is stored, (rows, columns).

    Attributes:
        weights: how many there are.
        zeros: how many of them are exactly zero.
        zero_rows: rows without any other weight.
        zero_columns: columns without any other weight.
        along_rows: N:M patterns that groups of consecutive entries of a row hold: of a Linear's inputs.
        along_columns: those that groups of consecutive entries of a column hold.
        not_finite: entries that are NaN or infinite.
    """

    weights: int
    zeros: int
    zero_rows: int
    zero_columns: int
    along_rows: tuple[HeldPattern, ...] = ()
    along_columns: tuple[HeldPattern, ...] = ()
    not_finite: int = 0


@dataclass(frozen=True)
class ChangeFacts:
    """What differs between one matrix and its dense original.

    Attributes:
        pruned: weights that are zero now and were not.
        refilled: weights that were zero and are not now.
        updated: weights that are zero neither before nor now and have another value.
        kept: weights that are zero neither before nor now.
        relative_change: ‖W − Ŵ‖ / ‖W‖ over all weights; None where W is zero.
        relative_update: the same over the kept weights.
    """

    pruned: int
    refilled: int
    updated: int
    kept: int
    relative_change: float | None
    relative_update: float | None


def zero_facts(weight: Tensor) -> ZeroFacts:
    """Count a matrix.

    Args:
        weight: (rows, columns) of any floating dtype.
    """
    nonzero = weight != 0
    has_zeros = not bool(nonzero.all())
    return ZeroFacts(
        weights=weight.numel(),
        zeros=int((~nonzero).sum()),
        zero_rows=int((~nonzero.any(1)).sum()),
        zero_columns=int((~nonzero.any(0)).sum()),
        along_rows=tuple(_held(nonzero)) if has_zeros else (),
        along_columns=tuple(_held(nonzero.T)) if has_zeros else (),
        not_finite=int((~weight.isfinite()).sum()),
    )


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
    found: list[HeldPattern] = []
    for of in GROUPS:
        if nonzero.shape[1] % of or not nonzero.numel():
            continue
        keep = int(nonzero.reshape(len(nonzero), -1, of).sum(2).max())
        own = HeldPattern(keep, of)
        if 0 < keep < of and not any(other.implies(own) for other in found):
            found.append(own)
            yield own


def _ratio(difference: Tensor, original: Tensor) -> float | None:
    norm = float(torch.linalg.vector_norm(original))
    return float(torch.linalg.vector_norm(difference)) / norm if norm > 0 else None
