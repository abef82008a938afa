"""SparseGPT's loop over the columns of a column block as one Triton kernel: one launch, not several per column."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 512  # entries per program: 16 for each thread of its one warp, which stay in registers


@triton.jit
def _quotient(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """X / y, rounded to the nearest as PyTorch does; Triton's plain float32 division is approximate."""
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def _select(
    tile: tl.tensor,
    diagonal: tl.tensor,
    keep: tl.tensor,
    inner: tl.tensor,
    first: tl.tensor,
    n: tl.constexpr,
    m: tl.constexpr,
) -> tl.tensor:
    """``keep`` with the ``m`` columns from ``first`` on chosen as ``NofM.select`` does, (row_tile, column_tile)."""
    score = _quotient(tile, diagonal)
    score = score * score
    rank = tl.zeros(tile.shape, tl.int32)  # how many of the group come before this one
    for member in range(first, first + m):
        rival = tl.sum(tl.where(inner == member, score, 0.0), axis=1)[:, None]
        rank += ((rival > score) | ((rival == score) & (member < inner))).to(tl.int32)
    return tl.where((inner >= first) & (inner < first + m), rank < n, keep)


@triton.jit
def _columns_kernel(  # noqa: PLR0913 - a kernel takes pointers, sizes and strides one by one
    block_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    keep_ptr: tl.tensor,
    errors_ptr: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    block_row: tl.tensor,
    block_column: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    n: tl.constexpr,
    m: tl.constexpr,
    row_tile: tl.constexpr,
    column_tile: tl.constexpr,
) -> None:
    """One program solves ``row_tile`` rows; ``m`` is 0 where the mask is given.

    ``block`` and ``factor`` come with their strides; ``keep`` and ``errors`` are contiguous, (rows, columns).
    A column is left alone after its turn, so what was removed is there to make the errors from in the end.
    """
    # 64 bits: a row times the stride of a large matrix overflows 32
    outer = (tl.program_id(0) * row_tile + tl.arange(0, row_tile)).to(tl.int64)[:, None]
    flat = tl.arange(0, column_tile)
    inner = flat[None, :]
    inside = (outer < rows) & (inner < columns)
    block_at = block_ptr + outer * block_row + inner * block_column
    tile = tl.load(block_at, mask=inside, other=0.0)
    diagonal = tl.load(factor_ptr + flat * (factor_row + factor_column), mask=flat < columns, other=1.0)[None, :]
    if m == 0:
        keep = tl.load(keep_ptr + outer * columns + inner, mask=inside, other=True)
    else:
        keep = tl.full((row_tile, column_tile), True, tl.int1)
    for column in range(columns):
        along = tl.load(factor_ptr + column * factor_row + flat * factor_column, mask=flat < columns, other=0.0)
        pivot = tl.load(factor_ptr + column * (factor_row + factor_column))
        if m > 0:  # noqa: SIM102 - decided when the kernel is compiled, and m divides nothing where it is 0
            if column % m == 0:
                keep = _select(tile, diagonal, keep, inner, column, n, m)
        removed = tl.sum(tl.where((inner == column) & ~keep, tile, 0.0), axis=1)  # 0 in the rows that keep it
        error = _quotient(removed, pivot)
        tile -= error[:, None] * tl.where(flat > column, along, 0.0)[None, :]
    tl.store(block_at, tl.where(keep, tile, 0.0), mask=inside)
    tl.store(errors_ptr + outer * columns + inner, tl.where(keep, 0.0, _quotient(tile, diagonal)), mask=inside)
    if m > 0:
        tl.store(keep_ptr + outer * columns + inner, keep, mask=inside)


def solve_block(
    block: Tensor, factor: Tensor, keep: Tensor | None, nofm: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Prune the columns of ``block`` in place, left to right; returns its keep mask and the scaled errors.

    Args:
        block: weights, shape (rows, columns), finite; may be a view of a larger matrix.
        factor: upper Cholesky factor of the inverse Hessian at these columns, shape (columns, columns).
        keep: mask (bool), shape (rows, columns), or None where ``nofm`` chooses it as the groups' turns come.
        nofm: (n, m) to keep n of every m columns, or None where ``keep`` is given.

    Returns:
        The keep mask (bool) and the scaled errors, both of shape (rows, columns).

    Raises:
        ValueError: not exactly one of ``keep`` and ``nofm`` is given, or m doesn't divide the columns.
    """
    rows, columns = block.shape
    if (keep is None) == (nofm is None):
        raise ValueError("give either a keep mask or N:M")
    n, m = nofm or (0, 0)
    if m and columns % m:
        raise ValueError(f"a block of {columns} columns is not divisible by M={m}")
    keep = torch.empty(rows, columns, dtype=torch.bool, device=block.device) if keep is None else keep.contiguous()
    errors = torch.empty(rows, columns, dtype=block.dtype, device=block.device)
    column_tile = triton.next_power_of_2(columns)
    row_tile = max(_TILE // column_tile, 1)
    with torch.cuda.device_of(block):  # Triton launches on the current device, which need not be the block's
        _columns_kernel[(triton.cdiv(rows, row_tile),)](
            block,
            factor,
            keep,
            errors,
            rows,
            columns,
            *block.stride(),
            *factor.stride(),
            n=n,
            m=m,
            row_tile=row_tile,
            column_tile=column_tile,
            num_warps=1,  # columns come one after the other, and a warp has no other to wait for at each
            enable_fp_fusion=False,  # rounds as the loop in PyTorch does, so that both choose the same N:M masks
        )
    return keep, errors
