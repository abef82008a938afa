"""Least squares on a fixed mask: the kept weights whose outputs are nearest to the dense weight's."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.compensation import Compensation
from statprune.core.conjugate_gradients import SecondMoments, fit_kept_weights
from statprune.core.held_out import HELD_OUT_EVERY, evenly_spaced, split
from statprune.core.output_errors import output_errors
from statprune.core.solution import Diagnostics
from statprune.core.statistics import InputStatistics, StatisticsKind

NOISE = 1e-6  # share of a channel's energy that is rounding error once the held-out rows are taken from the rest


class FittedTo(Enum):
    """What the outputs are compared on.

    gram: all calibration tokens, by the Gram matrix of their channels. rows: sampled rows alone.
    """

    gram = "gram"
    rows = "rows"


@dataclass(frozen=True)
class LeastSquares(Compensation):
    """Draft.

    Attributes:
        statistics: what the outputs are compared on.
        steps: how many.
        damping: ridge.
        samples: rows.
        min_gain: gain.
    """

    statistics: FittedTo = FittedTo.gram
    steps: int = 10
    damping: float | None = None
    samples: int = 512
    min_gain: float = 0.02

    named_options: ClassVar[tuple[str, ...]] = ("statistics",)

    @property
    def needs(self) -> StatisticsKind:
        return StatisticsKind.GRAM if self.statistics is FittedTo.gram else StatisticsKind.MOMENTS

    def variant(self) -> tuple[str, ...]:
        return () if self.statistics is FittedTo.gram else ("rows",)

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, Diagnostics]:
        fitted, held_out = split(evenly_spaced(statistics.rows, self.samples))
        key = ("least squares", self.statistics, self.samples, dense.dtype)
        moments = statistics.once(key, lambda: self._second_moments(statistics, fitted, held_out, dense.dtype))
        free = keep & (moments.diagonal > 0)
        result, after, chosen = pruned, dense.new_tensor(torch.inf), dense.new_tensor(torch.nan)
        for damping in self._candidates:
            weight, left = fit_kept_weights(dense, pruned, free, moments, damping, self.steps)
            before, error = output_errors(dense, [pruned, weight], held_out)
            is_better = error < after
            result, after = torch.where(is_better, weight, result), torch.where(is_better, error, after)
            chosen = torch.where(is_better, damping, chosen)
        is_better = after <= before * (1 - self.min_gain)
        result, after = torch.where(is_better, result, pruned), torch.where(is_better, after, before)
        shift_before, shift_after = output_errors(dense, [pruned, result], statistics.mean[None])
        return result, {
            "mean_shift_before": shift_before,
            "mean_shift_after": shift_after,
            "output_error_before": before,
            "output_error_after": after,
            "relative_output_error": after,
            "fit_damping": chosen,
            "fit_residual": (left[1] / left[0]).sqrt(),
            "corrected": is_better.double(),
        }

    @property
    def _candidates(self):
        import os
        if "LSQ_DAMPINGS" in os.environ: return [float(x) for x in os.environ["LSQ_DAMPINGS"].split(",")]
        if self.damping is not None: return (self.damping,)
        return (0.01,) if self.statistics is FittedTo.gram else (0.1, 0.3, 1.0, 3.0)

    def _second_moments(self, statistics, fitted, held_out, dtype):
        if self.statistics is FittedTo.rows:
            rows = fitted.double()
            energy = rows.square().sum(0)
            unit = energy.mean()
            return SecondMoments((energy / unit).to(dtype), rows=(rows / unit.sqrt()).to(dtype))
        rows = held_out.double()
        gram = torch.addmm(statistics.gram, rows.T, rows, alpha=-1)
        energy = gram.diagonal()
        energy = torch.where(energy > NOISE * statistics.gram.diagonal(), energy, 0.0)
        unit = energy.mean()
        return SecondMoments((energy / unit).to(dtype), gram=(gram / unit).to(dtype))
