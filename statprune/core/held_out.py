"""Sampled input rows in two parts: those that a correction is fitted to, and those that judge it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.core.output_errors import error_without_and_with_bias, output_errors
from statprune.core.solution import Diagnostics

HELD_OUT_EVERY = 4  # every fourth sampled row is held out, and judges whether the correction helps


def evenly_spaced(rows: Tensor, count: int) -> Tensor:
    """At most ``count`` of the rows, evenly spaced: statistics hold more where the report's output error needs them."""
    return rows if len(rows) <= count else rows[torch.arange(count, device=rows.device) * len(rows) // count]


def split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit to and rows to hold out, both (…, in_features): every fourth, so that each covers all windows."""
    groups = len(rows) // HELD_OUT_EVERY  # a mask of rows would make a GPU's host wait for it
    whole = rows[: groups * HELD_OUT_EVERY].unflatten(0, (groups, HELD_OUT_EVERY))
    fitted = torch.cat([whole[:, :-1].flatten(0, 1), rows[groups * HELD_OUT_EVERY :]])
    return fitted, whole[:, -1].contiguous()


@dataclass(frozen=True)
class Judged:
    """A correction, or what it did not better.

    Attributes:
        weight: the corrected one, or the pruned one.
        is_better: whether it is the corrected one, a scalar, bool.
        diagnostics: ``mean_shift_before`` and ``mean_shift_after`` (norm of the outputs' mean shift over that of their
            means), ``output_error_before`` and ``output_error_after`` (relative, on the held-out rows; the latter also
            as ``relative_output_error``), ``bias_output_error`` (what a bias would leave of the former, as
            ``error_without_and_with_bias`` has it).
    """

    weight: Tensor
    is_better: Tensor
    diagnostics: Diagnostics


def check_gate(samples: int, min_gain: float) -> None:
    """Raise ValueError where no row could be held out, or the gain is no share."""
    if samples < HELD_OUT_EVERY:
        raise ValueError(f"compensation.samples={samples} is too small; give at least {HELD_OUT_EVERY}")
    if not 0 <= min_gain < 1:
        raise ValueError(f"compensation.min_gain={min_gain} is outside [0, 1); give a small share such as 0.02")


def judged(dense: Tensor, pruned: Tensor, corrected: Tensor, held_out: Tensor, mean: Tensor, min_gain: float) -> Judged:
    """The corrected weight where it takes away enough of the held-out output error, else the pruned one.

    Args:
        dense: W, (out_features, in_features).
        pruned: Ŵ, of the same shape.
        corrected: of the same shape.
        held_out: rows that no scale or weight was fitted to, (samples, in_features); without any the pruned one stays.
        mean: μ of the inputs, (in_features,), in the weights' precision.
        min_gain: share of the error that has to go.
    """
    before, with_bias = error_without_and_with_bias(dense, pruned, held_out, mean)
    (after,) = output_errors(dense, [corrected], held_out)
    is_better = after <= before * (1 - min_gain)  # False without held-out rows, whose error is NaN
    weight, after = torch.where(is_better, corrected, pruned), torch.where(is_better, after, before)
    shift_before, shift_after = output_errors(dense, [pruned, weight], mean[None])
    diagnostics: Diagnostics = {
        "mean_shift_before": shift_before,
        "mean_shift_after": shift_after,
        "output_error_before": before,
        "output_error_after": after,
        "relative_output_error": after,
        "bias_output_error": with_bias,
    }
    return Judged(weight, is_better, diagnostics)
