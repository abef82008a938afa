"""Selecting the smallest scores in Triton: one launch for the rows of a matrix, two for one long row after sorting it.

Ties are broken as ``patterns.smallest`` has it: of equal scores at the threshold, evenly spaced ones are chosen.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LONGEST = 2**16  # columns of a row that one program holds
_ENTRIES = 4096  # of a long row, per program


@triton.jit
def _ordered(score: tl.tensor) -> tl.tensor:
    """Integers that are ordered as float32 numbers are; zeros of both signs are the same."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _evenly(equal: tl.tensor, before: tl.tensor, missing: tl.tensor, total: tl.tensor) -> tl.tensor:
    """Which of the entries that are ``equal`` to the threshold are chosen, so that ``missing`` of ``total`` are.

    Args:
        equal: of some entries in their order, int64, 1 or 0.
        before: how many there are before these.
        missing: how many are to be chosen.
        total: how many there are in all.
    """
    place = before + tl.cumsum(equal, 0)
    total = tl.maximum(total, 1)
    return (equal > 0) & (place * missing // total > (place - 1) * missing // total)


@triton.jit
def _rows_kernel(
    score_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    count: tl.tensor,
    width: tl.constexpr,
) -> None:
    """One program finds the ``count`` smallest of one row: the threshold by halving the range of the integers."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, width)
    inside = column < columns
    key = _ordered(tl.load(score_ptr + row * stride + column, mask=inside, other=0.0))
    low = tl.min(tl.where(inside, key, 0x7FFFFFFF), 0)
    high = tl.max(tl.where(inside, key, -0x80000000), 0)
    key = tl.where(inside, key, 0x7FFFFFFF)
    while low < high:
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # their sum overflows
        is_enough = tl.sum((key <= middle).to(tl.int32), 0) >= count
        high = tl.where(is_enough, middle, high)
        low = tl.where(is_enough, low, middle + 1)
    own = chosen_ptr + row * columns + column
    below, equal = key < low, inside & (key == low)
    missing, total = count - tl.sum(below.to(tl.int32), 0), tl.sum(equal.to(tl.int32), 0)
    if missing == total:  # few scores are equal: dividing 64 bits for each takes longer than all of the rest
        tl.store(own, below | equal, mask=inside)
    else:
        evenly = _evenly(equal.to(tl.int64), 0, missing.to(tl.int64), total.to(tl.int64))
        tl.store(own, below | evenly, mask=inside)


@triton.jit
def _count_kernel(
    score_ptr: tl.tensor, threshold_ptr: tl.tensor, counts_ptr: tl.tensor, size: tl.tensor, entries: tl.constexpr
) -> None:
    """One program counts, of ``entries`` scores, those below the threshold and those that are equal to it."""
    place = tl.program_id(0).to(tl.int64) * entries + tl.arange(0, entries)
    inside = place < size
    score, threshold = tl.load(score_ptr + place, mask=inside, other=0.0), tl.load(threshold_ptr)
    tl.store(counts_ptr + tl.program_id(0), tl.sum((inside & (score < threshold)).to(tl.int64), 0))
    own = counts_ptr + tl.num_programs(0) + tl.program_id(0)
    tl.store(own, tl.sum((inside & (score == threshold)).to(tl.int64), 0))


@triton.jit
def _choose_kernel(  # noqa: PLR0913 - a kernel takes pointers and sizes one by one
    score_ptr: tl.tensor,
    threshold_ptr: tl.tensor,
    totals_ptr: tl.tensor,
    before_ptr: tl.tensor,
    chosen_ptr: tl.tensor,
    size: tl.tensor,
    count: tl.tensor,
    entries: tl.constexpr,
) -> None:
    """One program chooses among ``entries`` scores, given what all of them counted and those before this one."""
    missing, total = count - tl.load(totals_ptr), tl.load(totals_ptr + 1)
    place = tl.program_id(0).to(tl.int64) * entries + tl.arange(0, entries)
    inside = place < size
    score, threshold = tl.load(score_ptr + place, mask=inside, other=0.0), tl.load(threshold_ptr)
    equal = (inside & (score == threshold)).to(tl.int64)
    chosen = (score < threshold) | _evenly(equal, tl.load(before_ptr + tl.program_id(0)), missing, total)
    tl.store(chosen_ptr + place, chosen, mask=inside)


def smallest_of_rows(score: Tensor, count: int) -> Tensor:
    """Mask (bool) of the ``count`` smallest entries of every row.

    Args:
        score: (rows, columns), float32, with no more than ``LONGEST`` columns.
        count: at least 1, at most the columns.
    """
    score = score if score.stride(1) == 1 else score.contiguous()
    rows, columns = score.shape
    chosen = torch.empty(rows, columns, dtype=torch.bool, device=score.device)
    width = triton.next_power_of_2(columns)
    with torch.cuda.device_of(score):  # Triton launches on the current device, which need not be the score's
        _rows_kernel[(rows,)](
            score, chosen, columns, score.stride(0), count, width=width, num_warps=max(1, min(16, width // 1024))
        )
    return chosen


def smallest_below(score: Tensor, threshold: Tensor, count: int) -> Tensor:
    """Mask (bool) of the ``count`` smallest entries of one row, given the largest of them.

    Args:
        score: (1, columns).
        threshold: one value.
        count: at least 1, at most the columns.
    """
    score = score.contiguous()
    size = score.numel()
    programs = triton.cdiv(size, _ENTRIES)
    counts = torch.empty(2, programs, dtype=torch.int64, device=score.device)
    chosen = torch.empty(score.shape, dtype=torch.bool, device=score.device)
    with torch.cuda.device_of(score):
        _count_kernel[(programs,)](score, threshold, counts, size, entries=_ENTRIES)
        before = counts[1].cumsum(0) - counts[1]
        _choose_kernel[(programs,)](score, threshold, counts.sum(1), before, chosen, size, count, entries=_ENTRIES)
    return chosen
