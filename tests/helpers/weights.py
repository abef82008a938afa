"""Weights before and after."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def weights_of(model: nn.Module) -> list[Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def are_equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether the weights are the same to the last bit."""
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
