"""Work on large matrices in parts of their rows, so that what comes in between stays in a processor's cache."""

from torch import Tensor

# entries of a part; a GPU has little cache to gain from, and is kept busy by larger ones
PART = {"cpu": 2**20, "cuda": 2**26}


def row_parts(matrix: Tensor, entries: int = 0) -> list[slice]:
    """The rows of a matrix, in parts; ``entries``: what is made of each row, if that is more than the row itself."""
    rows, columns = matrix.shape
    step = max(1, PART.get(matrix.device.type, 2**26) // max(columns, entries))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
