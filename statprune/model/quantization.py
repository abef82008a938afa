"""A model whose matrices torchao has quantised, for as long as it is measured; what that changes, and what it takes.

Weights only, and symmetric: an integer times the scale of its group, without a zero point. A pruned weight therefore is
exactly zero afterwards, which is counted all the same.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.model.matrix import Block, PrunableMatrix

if TYPE_CHECKING:
    from torchao.core.config import AOBaseConfig
    from transformers import PreTrainedModel

LIBRARY = "torchao"
BITS = {"int8": 8, "int4": 4}
NOT_LINEAR = "not nn.Linear"


@dataclass(frozen=True)
class Scheme:
    """How matrices are quantised.

    Attributes:
        name: int8 or int4.
        group_size: how many consecutive inputs of a row share a scale; None: all.
    """

    name: str
    group_size: int | None = None

    @property
    def bits(self) -> int:
        """Of an integer."""
        return BITS[self.name]

    def config(self) -> "AOBaseConfig":
        """The same for torchao.

        Its Int4WeightOnlyConfig has zero points and needs a GPU. Without clipping a scale is the least that neither
        the largest nor the smallest weight of the group exceeds: with 16 values clipping the largest costs more.
        """
        from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
        from torchao.quantization.granularity import PerAxis, PerGroup, PerRow
        from torchao.quantization.quant_primitives import MappingType

        group = None if self.group_size is None else PerGroup(self.group_size)
        if self.bits == 8:
            return Int8WeightOnlyConfig(granularity=group or PerRow(), set_inductor_config=False)
        int4: torch.dtype = getattr(torch, "int4")  # noqa: B009 - torch has it, and its type hints don't
        return IntxWeightOnlyConfig(int4, group or PerAxis(0), MappingType.SYMMETRIC_NO_CLIPPING_ERR)


@dataclass(frozen=True)
class QuantizedWeights:
    """What quantising changed, counted on the weights that the quantised matrices stand for.

    Attributes:
        matrices: how many are quantised.
        weights: of them.
        zeros: weights of them that were exactly zero before.
        zeros_kept: how many of these are exactly zero afterwards.
        zeros_after: all that are exactly zero afterwards: small weights are rounded to zero.
        left: weights of the blocks' other matrices, which stay in the model's dtype, by reason.
        bytes: of all the model's tensors as torchao holds them, scales and zero points of zero included; an int4 takes
            a byte.
        packed_bytes: of the same with two int4 to a byte and no zero points; embeddings, norms and head as they are.
    """

    matrices: int
    weights: int
    zeros: int
    zeros_kept: int
    zeros_after: int
    left: dict[str, int]
    bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class Quantizable:
    """Which of the blocks' matrices can be quantised.

    Attributes:
        modules: whose weights can be, by the matrices' full names.
        left: weights of the others by reason.
    """

    modules: dict[str, nn.Linear]
    left: dict[str, int] = field(default_factory=dict)


def library_version() -> str | None:
    """The installed version of torchao; None: it is not installed."""
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return None


def quantizable(blocks: Sequence[Block]) -> Quantizable:
    """Sort the blocks' matrices.

    torchao quantises the weights of ``nn.Linear``: neither matrices that are stored the other way round (GPT-2's
    Conv1D) nor experts that a parameter stacks.
    """
    modules: dict[str, nn.Linear] = {}
    left: Counter[str] = Counter()
    for block in blocks:
        for matrix in block.matrices:
            module = _module_of(block, matrix)
            if module is None:
                left[NOT_LINEAR] += matrix.weights
            else:
                modules[block.full_name(matrix)] = module
        for skipped in block.skipped:
            left[skipped.reason] += skipped.weights
    return Quantizable(modules, dict(left))


def check_quantizable(model: "PreTrainedModel", blocks: Sequence[Block], scheme: Scheme) -> None:
    """Check that something can be quantised, and that groups divide the rows.

    Raises:
        ModelError: not so.
    """
    modules = quantizable(blocks).modules
    if not modules:
        raise ModelError(
            f"{type(model).__name__} has no matrix that torchao can quantise, which takes the weights of nn.Linear "
            "only; give quantize=none"
        )
    size = scheme.group_size
    for name, module in modules.items():
        if size is not None and module.in_features % size:
            raise ModelError(
                f"quantize.group_size={size} does not divide the {module.in_features} inputs of {name}; give a divisor "
                "of them, or quantize.group_size=null for a scale per row"
            )


def quantizing_bytes(blocks: Sequence[Block], scheme: Scheme) -> int:
    """Most bytes that quantised matrices take beside those of the model, with what quantising or using one takes."""
    weights = [module.weight for module in quantizable(blocks).modules.values()]
    groups = [own.numel() // (scheme.group_size or own.shape[1]) for own in weights]
    held = sum(own.numel() for own in weights) + 5 * sum(groups)  # a byte each; float32 scales and zero points
    return held + 4 * 4 * max(own.numel() for own in weights)


@contextmanager
def quantized(model: "PreTrainedModel", blocks: Sequence[Block], scheme: Scheme) -> Iterator[QuantizedWeights]:
    """Have the model's matrices quantised while the body runs; then it has its own again, to the last bit.

    Args:
        model: with its weights in memory.
        blocks: of the model.
        scheme: how.
    """
    chosen = quantizable(blocks)
    own = {name: module.weight for name, module in chosen.modules.items()}
    zeros: Counter[str] = Counter()
    try:
        for name, module in chosen.modules.items():
            module.weight = _quantized(own[name], scheme)
            zeros.update(_zeros(own[name], module.weight))
        tensors = _stored(model)
        yield QuantizedWeights(
            matrices=len(own),
            weights=sum(weight.numel() for weight in own.values()),
            zeros=zeros["before"],
            zeros_kept=zeros["kept"],
            zeros_after=zeros["after"],
            left=chosen.left,
            bytes=sum(map(_held_bytes, tensors)),
            packed_bytes=sum(_packed_bytes(tensor, scheme) for tensor in tensors),
        )
    finally:
        for name, module in chosen.modules.items():
            module.weight = own[name]


def model_bytes(model: "PreTrainedModel") -> int:
    """Bytes of all the model's tensors that are saved, tied ones once, as they are in memory."""
    return sum(map(_held_bytes, _stored(model)))


def _module_of(block: Block, matrix: PrunableMatrix) -> nn.Linear | None:
    path, _, name = matrix.parameter_name.rpartition(".")
    module = block.module.get_submodule(path)
    if not isinstance(module, nn.Linear) or name != "weight" or matrix.count > 1 or matrix.transposed:
        return None
    return module if module.weight is matrix.parameter else None


@torch.no_grad()
def _quantized(weight: Tensor, scheme: Scheme) -> nn.Parameter:
    """The weight quantised; the module that has it does not see torchao, which would change more of it."""
    from torchao.quantization import quantize_

    holder = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"))
    holder[0].weight = weight
    quantize_(holder, scheme.config())
    result = holder[0].weight
    assert isinstance(result, nn.Parameter)
    result.requires_grad_(weight.requires_grad)
    return result


@torch.no_grad()
def _zeros(before: Tensor, after: Tensor) -> dict[str, int]:
    was, is_now = before == 0, after.dequantize() == 0
    return {"before": int(was.sum()), "kept": int((was & is_now).sum()), "after": int(is_now.sum())}


def _stored(model: nn.Module) -> list[Tensor]:
    """Tensors of the model that are saved, each once."""
    named = dict(model.named_parameters(remove_duplicate=False))
    buffers = {id(own): own for name, own in model.state_dict(keep_vars=True).items() if name not in named}
    return [*model.parameters(), *buffers.values()]


def _parts(tensor: Tensor) -> dict[str, Tensor]:
    """The plain tensors that a quantised one consists of, by their names."""
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]  # of subclasses
    return {name: getattr(tensor, name) for name in names}


def _is_quantized(tensor: Tensor) -> bool:
    return hasattr(tensor, "__tensor_flatten__")


def _held_bytes(tensor: Tensor) -> int:
    parts = _parts(tensor).values() if _is_quantized(tensor) else [tensor]
    return sum(own.numel() * own.element_size() for own in parts)


def _packed_bytes(tensor: Tensor, scheme: Scheme) -> int:
    if not _is_quantized(tensor):
        return _held_bytes(tensor)
    rows, columns = tensor.shape
    scale = _parts(tensor)["scale"]
    return rows * -(-columns * scheme.bits // 8) + scale.numel() * scale.element_size()
