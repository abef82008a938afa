"""Which tensors of a checkpoint are weight matrices, by names and shapes alone, as a run counts them with its model."""

import re
from collections.abc import Collection, Iterable, Sequence

import torch

from statprune.walk.products import is_matrix

BUFFERS = ("bias", "mask")  # how names of what multiplies no input end: biases of experts, masks of old checkpoints
SCALE = re.compile("scale|absmax")
# two numbers in a byte, with which torch can't count; powers of two, of which none is zero
CODES = (torch.float4_e2m1fn_x2, torch.float8_e8m0fnu)


def is_weight_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix of weights, or a stack of them.

    Biases are none, (experts, features) or (1, features), and neither are the masks and tables that old checkpoints
    hold for each position, (1, 1, positions, positions).

    Examples:
        >>> is_weight_matrix("model.layers.0.mlp.experts.down_proj", (4, 48, 32))
        True
        >>> is_weight_matrix("model.layers.0.mlp.experts.down_proj_bias", (4, 32))
        False
    """
    if not is_matrix(shape) or min(shape) == 0 or name.endswith(BUFFERS):
        return False
    if len(shape) == 2 and min(shape) == 1:
        return name.endswith(".weight")  # a gate with one output
    return len(shape) < 4 or any(size > 1 for size in shape[:-2])


def is_countable(dtype: torch.dtype) -> bool:
    """Whether values of the type are numbers of which zeros can be counted, not another tool's codes."""
    return dtype.is_floating_point and dtype not in CODES


def is_coded(dtype: torch.dtype) -> bool:
    """Whether values of the type are another tool's codes, or numbers of eight bits, which have scales beside them."""
    return not is_countable(dtype) or dtype.itemsize == 1


def scales_of(coded: Iterable[str], names: Collection[str]) -> set[str]:
    """Which tensors are scales of coded ones: they are called so, and belong to the same module."""
    modules = {_module(name) for name in coded}
    return {name for name in names if _module(name) in modules and SCALE.search(name.rpartition(".")[2])}


def _module(name: str) -> str:
    return name.rpartition(".")[0]
