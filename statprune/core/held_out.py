"""Sampled input rows in two parts: those that a correction is fitted to, and those that judge it."""

import torch
from torch import Tensor

HELD_OUT_EVERY = 4  # every fourth sampled row is held out, and judges whether the correction helps


def evenly_spaced(rows: Tensor, count: int) -> Tensor:
    """At most ``count`` of the rows, evenly spaced: statistics hold more where the report's output error needs them."""
    return rows if len(rows) <= count else rows[torch.arange(count, device=rows.device) * len(rows) // count]


def split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit to, and rows to hold out: every fourth, so that both cover the whole calibration."""
    held_out = torch.arange(len(rows), device=rows.device) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return rows[~held_out], rows[held_out]
