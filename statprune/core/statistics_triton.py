"""Triton kernel of channel moments: one pass over the inputs as they are stored, with sums in float64."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHANNELS = 16, 128  # of a tile
_ROWS_OF_A_PROGRAM = 512


@triton.jit
def _moments_kernel(  # noqa: PLR0913 - a kernel takes pointers, sizes and strides one by one
    rows_ptr: tl.tensor,
    shift_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    stride: tl.tensor,
    program_rows: tl.constexpr,
    row_tile: tl.constexpr,
    channel_tile: tl.constexpr,
) -> None:
    """One program adds up ``program_rows`` rows of ``channel_tile`` channels: x − shift, and its square."""
    channel = tl.program_id(0) * channel_tile + tl.arange(0, channel_tile)
    is_channel = channel < channels
    shift = tl.load(shift_ptr + channel, mask=is_channel, other=0.0)
    total = tl.zeros((row_tile, channel_tile), tl.float64)
    squares = tl.zeros((row_tile, channel_tile), tl.float64)
    first = tl.program_id(1).to(tl.int64) * program_rows  # 64 bits: a row times the stride overflows 32
    for start in range(0, program_rows, row_tile):
        row = first + start + tl.arange(0, row_tile)
        inside = (row < rows)[:, None] & is_channel[None, :]
        values = tl.load(rows_ptr + row[:, None] * stride + channel[None, :], mask=inside, other=0.0).to(tl.float64)
        values = tl.where(inside, values - shift[None, :], 0.0)
        total += values
        squares += values * values
    own = sums_ptr + tl.program_id(1).to(tl.int64) * 2 * channels + channel
    tl.store(own, tl.sum(total, 0), mask=is_channel)
    tl.store(own + channels, tl.sum(squares, 0), mask=is_channel)


def shifted_sums(rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (x − shift) and Σ (x − shift)² of every channel, both (channels,), float64.

    Args:
        rows: (rows, channels), any floating dtype; at least one row.
        shift: (channels,), float64, near the channels' means: what squares would lose to them is not lost.
    """
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    count, channels = rows.shape
    programs = triton.cdiv(count, _ROWS_OF_A_PROGRAM)
    sums = torch.empty(programs, 2, channels, dtype=torch.float64, device=rows.device)
    with torch.cuda.device_of(rows):  # Triton launches on the current device, which need not be the rows'
        _moments_kernel[(triton.cdiv(channels, _CHANNELS), programs)](
            rows,
            shift,
            sums,
            count,
            channels,
            rows.stride(0),
            program_rows=_ROWS_OF_A_PROGRAM,
            row_tile=_ROWS,
            channel_tile=_CHANNELS,
        )
    total, squares = sums.sum(0)
    return total, squares
