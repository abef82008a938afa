"""First-order correction: put back what pruning took from every output's mean and scale. Ours, not the paper's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from statprune.compensation import Energy, check_clamp
from statprune.output_error import output_error
from statprune.parts import row_parts
from statprune.statistics import InputStatistics, StatisticsKind

HELD_OUT = 4  # one of so many sampled rows is not fitted to, and judges whether the layer is better off


@dataclass(frozen=True)
class Moments:
    """Correction of a pruned weight by its inputs' means and variances; it follows any method (ours, not the paper's).

    Mean: pruning shifts output i's mean by m_i = Σ_j (W_ij − Ŵ_ij) μ_j. Of all changes δ of the kept weights that put
    it back, Σ_j M_ij δ_ij μ_j = m_i, this is the one that adds least output variance Σ_j δ_ij² σ_j² where channels are
    not correlated; by Lagrange's condition 2 δ_ij σ_j² = λ_i μ_j on the kept weights,

        δ_ij = M_ij (μ_j / σ_j²) m_i / Σ_k M_ik μ_k² / σ_k².

    Scale: then one factor for each output row, γ_i = ⟨y_i, ŷ_i⟩ / ⟨ŷ_i, ŷ_i⟩, the least squares of y_i = x · W_i
    against ŷ_i = x · Ŵ_i over sampled inputs x.

    Both can be wrong for a layer whose sample says little. On rows that were not fitted to, the relative output error
    is compared before and after; a layer for which it would grow is left as it was.

    Attributes:
        mean: put the means back.
        scale: scale the rows.
        energy_first: begin with the paper's energy compensation, with its defaults (§3.2).
        floor: least variance of a channel, as a share of the mean variance.
        min_scale: lower clamp of γ.
        max_scale: upper clamp of γ.
        samples: input rows kept for each input; one in four is held out.
    """

    mean: bool = True
    scale: bool = True
    energy_first: bool = False
    floor: float = 1e-3
    min_scale: float = 0.5
    max_scale: float = 2.0
    samples: int = 2048

    name: ClassVar[str] = "moments"
    needs: ClassVar[StatisticsKind] = StatisticsKind.MOMENTS

    def __post_init__(self) -> None:
        check_clamp(self.min_scale, self.max_scale)
        if not 0 < self.floor <= 1:
            raise ValueError(f"compensation.floor={self.floor} is outside (0, 1]; give a small share such as 1e-3")
        if self.samples < HELD_OUT:
            raise ValueError(f"compensation.samples={self.samples} is too small; give at least {HELD_OUT}")

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Corrected weight, and what was done.

        Args:
            dense: original weight W, (out_features, in_features).
            pruned: pruned weight Ŵ, same shape; zero where ``keep`` is False.
            keep: mask M, bool.
            statistics: of the layer's input: moments and sampled rows.

        Returns:
            The weight, zero where it was pruned, and the report: ``mean_shift_before`` and ``mean_shift_after``
            (‖m‖ over the norm of the outputs' means),
            ``output_error_before`` and ``output_error_after`` (relative, on the held-out rows; the latter also as
            ``relative_output_error``),
            ``row_scale_min``, ``_mean`` and ``_max``, and ``corrected`` (1, or 0 where the layer was left as it was).
        """
        fitted, held_out = statistics.once(("moments", dense.dtype), lambda: _split(statistics.rows.to(dense.dtype)))
        base, report = Energy().apply(dense, pruned, keep, statistics) if self.energy_first else (pruned, {})
        result = torch.empty_like(dense)
        scale = dense.new_ones(len(dense))
        for rows in row_parts(dense):
            weight = result[rows].copy_(base[rows])
            if self.mean:
                self._restore_means(weight, dense[rows], keep[rows], statistics)
            if self.scale and len(fitted):
                scale[rows] = self._row_scale(weight, dense[rows], fitted)
                weight.mul_(scale[rows, None])
        before, after = (output_error(dense, weight, held_out) for weight in (pruned, result))
        is_better = after <= before  # not where there is no held-out row: NaN
        result, after = torch.where(is_better, result, pruned), torch.where(is_better, after, before)
        report |= {
            "mean_shift_before": _mean_shift(dense, pruned, statistics),
            "mean_shift_after": _mean_shift(dense, result, statistics),
            "output_error_before": before,
            "output_error_after": after,
            "relative_output_error": after,
            "row_scale_min": scale.min(),
            "row_scale_mean": scale.mean(),
            "row_scale_max": scale.max(),
            "corrected": is_better.double(),
        }
        return result, report

    def _restore_means(self, weight: Tensor, dense: Tensor, keep: Tensor, statistics: InputStatistics) -> None:
        """Ŵ ← Ŵ + δ, in place; a row that keeps no channel with a mean stays as it is."""
        mean, variance = statistics.mean, statistics.variance
        variance = variance.clamp_min(self.floor * variance.mean())
        direction = (mean / variance).nan_to_num(0, 0, 0).to(weight.dtype)
        gain = keep.to(weight.dtype) @ (direction * mean.to(weight.dtype))
        shift = (dense - weight) @ mean.to(weight.dtype)
        step = torch.where(gain > 0, shift / gain, 0.0)
        weight.addcmul_(step[:, None] * direction, keep.to(weight.dtype))

    def _row_scale(self, weight: Tensor, dense: Tensor, rows: Tensor) -> Tensor:
        """γ, (out_features,); 1 where the pruned output is zero."""
        wanted, given = rows @ dense.T, rows @ weight.T
        energy = given.square().sum(0)
        scale = (wanted * given).sum(0) / energy
        return torch.where(energy > 0, scale, 1.0).clamp(self.min_scale, self.max_scale)


def _split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit to, and rows held out: every fourth, so that both cover the whole calibration."""
    held_out = torch.arange(len(rows), device=rows.device) % HELD_OUT == HELD_OUT - 1
    return rows[~held_out], rows[held_out]


def _mean_shift(dense: Tensor, weight: Tensor, statistics: InputStatistics) -> Tensor:
    """‖m‖ over the norm of the outputs' means."""
    mean = statistics.mean.to(dense.dtype)
    return ((dense - weight) @ mean).norm() / (dense @ mean).norm()
