"""Sums of products xᵀ x of a matrix's inputs, window by window.

The products of bfloat16 and of float16 numbers are exact in float32, so a GPU's tensor cores may multiply them;
float32 inputs are multiplied in float32 and nothing less. Windows are added in float64, so that how they are batched,
or split over processes, does not change what rounding makes of the sum.
"""

import torch
from torch import Tensor

from statprune.core.kernels import multiplies_halves

STRIP = 512  # rows computed together: the symmetry of the result saves up to half of the work

EXACT_IN_FLOAT32 = (torch.bfloat16, torch.float16)  # products of two such numbers are


def add_products(gram: Tensor, inputs: Tensor, dtype: torch.dtype) -> None:
    """Add Σ x xᵀ over the inputs to ``gram``, on and above its diagonal; ``mirror`` makes it whole.

    Args:
        gram: (channels, channels), float64.
        inputs: (windows, tokens, channels), any floating dtype.
        dtype: in which products are taken and a window's are added, float32 or float64.
    """
    if dtype is torch.float32 and inputs.dtype in EXACT_IN_FLOAT32 and multiplies_halves(inputs):
        from statprune.core.gram_triton import add_half_products

        add_half_products(gram, inputs)
        return
    for window in inputs:
        rows = window.to(dtype)
        for first in range(0, len(gram), STRIP):
            last = first + STRIP
            gram[first:last, first:] += rows[:, first:last].T @ rows[:, first:]


def mirror(gram: Tensor) -> None:
    """Make what is below the diagonal what ``add_products`` left above it, in place."""
    if gram.is_cuda:  # in few launches, for another matrix of memory
        above = gram.triu(1)
        gram.triu_().add_(above.T)
        return
    for first in range(0, len(gram), STRIP):
        last = first + STRIP
        gram[last:, first:last] = gram[first:last, last:].T
