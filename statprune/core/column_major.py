"""Copies in the order in which LAPACK works, so that it needs none of its own."""

import torch
from torch import Tensor


def column_major_copy(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of a square matrix, (n, n), with each column in one piece of memory.

    It is no transpose: the two triangles of a product may differ in rounding, and factorisations read one of them.
    """
    return torch.empty_like(matrix, dtype=dtype, memory_format=torch.contiguous_format).T.copy_(matrix)
