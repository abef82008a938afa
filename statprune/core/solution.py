"""What a method returns of one matrix."""

from dataclasses import dataclass

from torch import Tensor

# numbers for the report of a matrix; a tensor is a scalar that a GPU may still be computing
Diagnostics = dict[str, Tensor | float]


@dataclass(frozen=True)
class Solution:
    """A pruned matrix.

    Attributes:
        weight: (out_features, in_features); zero where ``keep`` is False.
        keep: the mask, bool, of the same shape.
        diagnostics: numbers for the matrix's report.
    """

    weight: Tensor
    keep: Tensor
    diagnostics: Diagnostics
