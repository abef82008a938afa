"""Work on large matrices in chunks of their rows, so that intermediate values stay in a processor's cache."""

from torch import Tensor

# entries of a chunk; a GPU has little cache to gain from, and larger chunks keep it busy
CHUNK_ENTRIES = {"cpu": 2**20, "cuda": 2**26}


def row_chunks(matrix: Tensor, entries_per_row: int = 0) -> list[slice]:
    """Slices of the rows of a matrix, together all of them.

    Args:
        matrix: (rows, columns).
        entries_per_row: how many values the caller computes of each row, if more than the row has itself.
    """
    rows, columns = matrix.shape
    step = max(1, CHUNK_ENTRIES.get(matrix.device.type, 2**26) // max(columns, entries_per_row))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
