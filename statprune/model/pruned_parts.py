"""Which values of a checkpoint's files are those of pruned matrices.

A model's tensors need not have their names and forms in its files: transformers stacks experts that are stored one by
one, joins or transposes them. It knows the way back, and takes marks along it as it takes weights.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.model.matrix import Block, PrunableMatrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pruned_parts(
    model: "PreTrainedModel", block: Block, matrices: Iterable[PrunableMatrix]
) -> dict[str, bool | Tensor]:
    """Where the values of some matrices of a block are in the files that the model was opened from.

    Args:
        model: that has the block; opened by transformers, so that it knows the forms in its files.
        block: whose weights are here.
        matrices: of the block.

    Returns:
        By the names that the block's tensors have in files: whether all values are those of the matrices; where only
        some are, which ones, of the stored tensor's shape.
    """
    from transformers.core_model_loading import revert_weight_conversion

    tensors = block.module.state_dict()
    marks = {name: torch.zeros(tensor.shape, dtype=torch.uint8, device="cpu") for name, tensor in tensors.items()}
    for matrix in matrices:
        replace(matrix, parameter=marks[matrix.parameter_name]).stored.fill_(1)
    stored = revert_weight_conversion(model, {f"{block.path}.{name}": mark for name, mark in marks.items()})
    return {name: _part(mark.bool()) for name, mark in stored.items()}


def _part(mark: Tensor) -> bool | Tensor:
    return mark if mark.any() and not mark.all() else bool(mark.any())
