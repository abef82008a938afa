"""Triton kernel of Gram matrices: half-precision inputs on tensor cores, tiles on and above the diagonal."""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 128  # rows and columns computed by one program
_STEPS = 2  # products that tensor cores add to each other, which truncate; more lose more than float32 sums do
_SHAPES = ((64, 3), (64, 2), (32, 2))  # tokens multiplied at a time, and stages; those that need most memory first


# a constant 1 would take away the inner loop, and the outer one's stages need more memory than a GPU has
@triton.jit(do_not_specialize=["windows", "tokens"])
def _products_kernel(  # noqa: PLR0913 - a kernel takes pointers, sizes and strides one by one
    inputs_ptr: tl.tensor,
    gram_ptr: tl.tensor,
    windows: tl.tensor,
    tokens: tl.tensor,
    channels: tl.tensor,
    window_stride: tl.tensor,
    token_stride: tl.tensor,
    tile: tl.constexpr,
    depth: tl.constexpr,
    steps: tl.constexpr,
) -> None:
    """One program adds, window after window, the products of two tiles of channels to a tile of the matrix."""
    if tl.program_id(1) < tl.program_id(0):  # the other half of the matrix is the same
        return
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    is_row, is_column = row < channels, column < channels
    inside = is_row[:, None] & is_column[None, :]
    place = gram_ptr + row.to(tl.int64)[:, None] * channels + column[None, :]
    for _ in range(windows):
        total = tl.zeros((tile, tile), tl.float32)
        for start in range(0, tokens, depth * steps):
            part = tl.zeros((tile, tile), tl.float32)
            for step in tl.static_range(steps):
                token = (start + step * depth + tl.arange(0, depth)).to(tl.int64)[:, None]
                is_token = token < tokens
                at = inputs_ptr + token * token_stride
                left = tl.load(at + row[None, :], mask=is_token & is_row[None, :], other=0.0)
                right = tl.load(at + column[None, :], mask=is_token & is_column[None, :], other=0.0)
                part = tl.dot(tl.trans(left), right, part)
            total += part
        tl.store(place, tl.load(place, mask=inside, other=0.0) + total.to(tl.float64), mask=inside)
        inputs_ptr += window_stride


def add_half_products(gram: Tensor, inputs: Tensor) -> None:
    """Add Σ x xᵀ of every window to the tiles of ``gram`` on and above its diagonal, in place.

    The products are exact in float32. Tensor cores add 128 tokens of them, float32 registers those sums over a
    window, and float64 the windows. Measured against float64 on an H200, that loses no more than float32 products do.

    Args:
        gram: (channels, channels), float64, contiguous.
        inputs: (windows, tokens, channels), bfloat16 or float16.
    """
    inputs = inputs if inputs.stride(2) == 1 else inputs.contiguous()
    windows, tokens, channels = inputs.shape
    tiles = triton.cdiv(channels, TILE)
    depth, stages = _shape(inputs)
    with torch.cuda.device_of(inputs):  # Triton launches on the current device, which need not be the inputs'
        _products_kernel[(tiles, tiles)](
            inputs,
            gram,
            windows,
            tokens,
            channels,
            inputs.stride(0),
            inputs.stride(1),
            tile=TILE,
            depth=depth,
            steps=_STEPS,
            num_warps=8,
            num_stages=stages,
        )


def _shape(inputs: Tensor) -> tuple[int, int]:
    """Tokens multiplied at a time, and stages: what two tiles of both operands take must fit a multiprocessor."""
    if not inputs.is_cuda:
        return _SHAPES[0]
    room: int = triton.runtime.driver.active.utils.get_device_properties(inputs.device.index)["max_shared_mem"]
    return next((shape for shape in _SHAPES if room_needed(*shape) <= room), _SHAPES[-1])


def room_needed(depth: int, stages: int) -> int:
    """Bytes of shared memory for the tiles of both operands, in all stages."""
    return stages * _STEPS * 2 * depth * TILE * 2
