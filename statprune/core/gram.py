"""Sums of products xᵀ x of a matrix's inputs, window by window.

The products of bfloat16 and of float16 numbers are exact in float32, so a GPU's tensor cores may multiply them;
float32 inputs are multiplied in float32 and nothing less, unless TF32 is asked for. Windows are added in float64, so
that how they are batched, or split over processes, does not change what rounding makes of the sum.
"""

from enum import Enum

import torch
from torch import Tensor

from statprune.core.kernels import multiplies_halves
from statprune.system.devices import tensor_float32

STRIP = 512  # rows computed together: the symmetry of the result saves up to half of the work

EXACT_IN_FLOAT32 = (torch.bfloat16, torch.float16)  # products of two such numbers are
DROPPED_BY_TF32 = 13  # of float32's 23 bits of mantissa


class GramPrecision(Enum):
    """In what float32 inputs are multiplied for a Gram matrix.

    float32: as they are. tf32: rounded to TF32's 10 bits of mantissa, which a GPU's tensor cores multiply faster; a CPU
    rounds as well and saves no time. Sums are the same for both: float32 in a window, float64 over windows.
    """

    float32 = "float32"
    tf32 = "tf32"


def add_products(
    gram: Tensor, inputs: Tensor, dtype: torch.dtype, precision: GramPrecision = GramPrecision.float32
) -> None:
    """Add Σ x xᵀ over the inputs to ``gram``, on and above its diagonal; ``mirror`` makes it whole.

    Args:
        gram: (channels, channels), float64.
        inputs: (windows, tokens, channels), any floating dtype.
        dtype: in which products are taken and a window's are added, float32 or float64.
        precision: of the factors, where ``dtype`` is float32.
    """
    if dtype is torch.float32 and inputs.dtype in EXACT_IN_FLOAT32 and multiplies_halves(inputs):
        from statprune.core.gram_triton import add_half_products

        add_half_products(gram, inputs)
    elif dtype is torch.float32 and precision is GramPrecision.tf32:
        with tensor_float32():
            for window in inputs:
                _add_window(gram, rounded_to_tf32(window.float()))
    else:
        for window in inputs:
            _add_window(gram, window.to(dtype))


def rounded_to_tf32(values: Tensor) -> Tensor:
    """The nearest numbers with 10 bits of mantissa, ties away from zero, as PTX's ``cvt.rna.tf32.f32`` rounds.

    Args:
        values: float32, any shape.
    """
    bits = values.view(torch.int32) + (1 << (DROPPED_BY_TF32 - 1))
    rounded = (bits & -(1 << DROPPED_BY_TF32)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values)  # a NaN's bits may overflow into those of zero


def _add_window(gram: Tensor, rows: Tensor) -> None:
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
