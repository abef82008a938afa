"""Rows that are sampled from batches of a matrix's inputs, together in one piece of memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from statprune.system.malloc import RETURNED_AT_ONCE


class SampledRows:
    """Rows of a few batches' inputs.

    A batch's own rows would be small tensors that stay amid larger ones that come and go, and fragment the memory of a
    CPU's allocator: 24 windows of 512 tokens through a 135M model took 111 to 220 MiB, of which 24 to 110 were free.
    So rows that are expected get a piece that the allocator maps by itself; what it has no rows for yet takes none.

    Args:
        parts: rows that are there already, each (rows, in_features).
    """

    def __init__(self, parts: Sequence[Tensor] = ()):
        self._parts = list(parts)
        self._filled = 0  # rows of the last part, which has room for more; 0: it has none

    def append(self, rows: Tensor, expected: int) -> None:
        """Add rows.

        Args:
            rows: (rows, in_features).
            expected: how many rows there will be in the end, if that is known; room is made for them.
        """
        end = self._filled + len(rows)
        if not self._filled:
            self._parts.append(_room(rows, expected) if expected > len(rows) else torch.empty_like(rows))
        elif end > len(self._parts[-1]):
            grown = rows.new_empty(max(2 * len(self._parts[-1]), end), rows.shape[1])
            grown[: self._filled] = self._parts[-1][: self._filled]
            self._parts[-1] = grown
        self._parts[-1][self._filled : end] = rows
        self._filled = end

    @property
    def parts(self) -> list[Tensor]:
        """All rows, in the order they came, in as few tensors as hold them."""
        if not self._filled:
            return self._parts
        return [*self._parts[:-1], self._parts[-1][: self._filled]]

    def all(self, in_features: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """All rows, (rows, in_features), converted to ``dtype``; none where none was added."""
        parts = self.parts
        if not parts:
            return torch.zeros(0, in_features, dtype=dtype, device=device)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


def _room(rows: Tensor, expected: int) -> Tensor:
    """Memory for as many rows as are expected, apart from the heap's on a CPU."""
    size = expected * rows.shape[1]
    least = 0 if rows.is_cuda else RETURNED_AT_ONCE // rows.element_size() + 1
    return rows.new_empty(max(size, least))[:size].view(expected, rows.shape[1])
