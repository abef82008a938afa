"""Linears whose weight PyTorch stores sparse: CSR on a CPU, 2:4 on a GPU."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

PARTS = ("packed", "meta", "packed_t", "meta_t", "compressed_swizzled_bitmask")  # of a 2:4 tensor of PyTorch's


class Multiply(Protocol):
    """How inputs are multiplied by a sparse weight."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Inputs (..., in_features) to (..., out_features)."""


class SparseLinear(nn.Module):
    """A Linear with a sparse weight, for inference.

    Args:
        weight: (out_features, in_features), in a sparse layout.
        bias: (out_features,) or None.
        multiply: what computes it.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, multiply: Multiply):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.out_features, self.in_features = weight.shape
        self._multiply = multiply

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (..., in_features) to (..., out_features)."""
        return self._multiply(inputs, self.weight, self.bias)


def csr(weight: Tensor) -> Tensor:
    """A dense weight in CSR, with 32-bit indices, which take half of the memory of PyTorch's own choice."""
    wide = weight.to_sparse_csr()
    rows, columns = wide.crow_indices().to(torch.int32), wide.col_indices().to(torch.int32)
    return torch.sparse_csr_tensor(rows, columns, wide.values(), wide.shape)


def multiply_csr(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """CSR times dense: ``functional.linear`` refuses CSR in inference mode, and takes three times as long for 2-D."""
    outputs = (weight @ inputs.reshape(-1, inputs.shape[-1]).T).T
    outputs = outputs if bias is None else outputs + bias
    return outputs.reshape(*inputs.shape[:-1], -1)


def semi_structured(use_cutlass: bool) -> Callable[[Tensor], Tensor]:
    """What stores a dense 2:4 weight as ``to_sparse_semi_structured`` does, by CUTLASS or by cuSPARSELt."""

    def convert(weight: Tensor) -> Tensor:
        before = torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS
        torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS = use_cutlass
        try:
            return torch.sparse.to_sparse_semi_structured(weight)
        finally:
            torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS = before

    return convert


def multiply_semi_structured(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """2:4 times dense; PyTorch views the inputs as two-dimensional, so that they have to be contiguous."""
    return functional.linear(inputs.contiguous(), weight, bias)


def held_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, each piece of memory counted once, indices of sparse ones included."""
    pieces = [
        piece for tensor in (*module.parameters(), *module.buffers()) for piece in _pieces(tensor) if piece.numel()
    ]
    return sum({piece.untyped_storage().data_ptr(): piece.untyped_storage().nbytes() for piece in pieces}.values())


def own_memory(model: nn.Module) -> None:
    """Copy what a file's pages hold into memory of the process, so that no form is read from a disk."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            with suppress(NotImplementedError):  # a sparse one, which is no file's
                tensor.data = tensor.data.clone()


def _pieces(tensor: Tensor) -> list[Tensor]:
    if tensor.layout == torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    found = [getattr(tensor, name, None) for name in PARTS]
    return [piece for piece in found if isinstance(piece, Tensor)] or [tensor.detach()]
