"""First-order correction: put back what pruning took from every output's mean and scale. Ours, not the paper's."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from statprune.core.compensation import Energy, check_clamp
from statprune.core.output_errors import output_errors
from statprune.core.parts import row_parts
from statprune.core.statistics import InputStatistics, StatisticsKind

FITTED_FOR_A_GROUP = 4  # fewer rows than that for each scale say too little: rows of experts that few tokens reach
HELD_OUT = 4  # one of so many sampled rows is not fitted to, and judges whether the layer is better off


@dataclass(frozen=True)
class Moments:
    """Correction of a pruned weight by its inputs' means and variances; it follows any method (ours, not the paper's).

    Mean: pruning shifts output i's mean by m_i = Σ_j (W_ij − Ŵ_ij) μ_j. Of all changes δ of the kept weights that put
    it back, Σ_j M_ij δ_ij μ_j = m_i, this is the one that adds least output variance Σ_j δ_ij² σ_j² where channels are
    not correlated; by Lagrange's condition 2 δ_ij σ_j² = λ_i μ_j on the kept weights,

        δ_ij = M_ij (μ_j / σ_j²) m_i / Σ_k M_ik μ_k² / σ_k².

    Scale: then one factor for each output row, γ_i = ⟨y_i, ŷ_i⟩ / ⟨ŷ_i, ŷ_i⟩, the least squares of y_i = x · W_i
    against ŷ_i = x · Ŵ_i over sampled inputs x. With several ``groups`` of adjacent channels, G, a row has a factor for
    each: ŷ_i = Σ_g γ_ig ŷ_ig, and the γ_ig that are nearest to y_i while near to the row's common factor γ_i solve

        (A_i + ρ tr(A_i)/G I) γ = b_i + ρ tr(A_i)/G γ_i 1,   A_i = ⟨ŷ_ig, ŷ_ih⟩,  b_i = ⟨ŷ_ig, y_i⟩,

    with ρ the ``shrinkage`` and the common γ_i clamped: a ridge that keeps a few hundred rows from being fitted to
    the last bit. One group is the factor above.

    The scales move the means again, a little. Both steps can be wrong for a layer whose sample says little. On rows
    that the scales were not fitted to, the relative output error is compared before and after, in the precision that
    is computed in; a layer for which it would not fall by ``min_gain`` of itself is left as it was. A smaller gain is
    no evidence: a method such as SparseGPT has fitted the weight to the rows held out, too.

    Attributes:
        mean: put the means back.
        scale: scale the rows.
        energy_first: begin with the paper's energy compensation, with its defaults (§3.2).
        groups: of adjacent channels, each with its own factor in every row; fewer where there are not four rows to
            fit for each.
        shrinkage: ridge towards the row's common factor, as a share of the groups' mean energy.
        floor: least variance of a channel, as a share of the mean variance.
        min_scale: lower clamp of γ.
        max_scale: upper clamp of γ.
        samples: input rows used for each input, at most; one in four is held out. An expert has as many of them as
            its share of the tokens, and which ones depends on the batches.
        min_gain: least share of the held-out output error that the correction must take away; 0 only asks that the
            error does not grow.
    """

    mean: bool = True
    scale: bool = True
    energy_first: bool = False
    groups: int = 1
    shrinkage: float = 0.3
    floor: float = 1e-3
    min_scale: float = 0.5
    max_scale: float = 2.0
    samples: int = 512
    min_gain: float = 0.02

    name: ClassVar[str] = "moments"
    needs: ClassVar[StatisticsKind] = StatisticsKind.MOMENTS

    def __post_init__(self) -> None:
        check_clamp(self.min_scale, self.max_scale)
        if self.groups < 1:
            raise ValueError(f"compensation.groups={self.groups} is too small; give at least 1")
        if not 0 < self.shrinkage < math.inf:
            raise ValueError(f"compensation.shrinkage={self.shrinkage} is not positive; give a ridge such as 0.3")
        if not 0 < self.floor <= 1:
            raise ValueError(f"compensation.floor={self.floor} is outside (0, 1]; give a small share such as 1e-3")
        if self.samples < HELD_OUT:
            raise ValueError(f"compensation.samples={self.samples} is too small; give at least {HELD_OUT}")
        if not 0 <= self.min_gain < 1:
            raise ValueError(
                f"compensation.min_gain={self.min_gain} is outside [0, 1); give a small share such as 0.02"
            )

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
            ``row_scale_min``, ``_mean`` and ``_max`` (of what was fitted), and ``corrected`` (1, or 0 where the layer
            was left as it was).
        """
        fitted, held_out = _split(_spread(statistics.rows, self.samples).to(dense.dtype))
        mean, direction = self._direction(statistics, dense.dtype)
        base, report = Energy().apply(dense, pruned, keep, statistics) if self.energy_first else (pruned, {})
        result = torch.empty_like(dense)
        groups = max(1, min(self.groups, len(fitted) // FITTED_FOR_A_GROUP))
        inputs = _grouped(fitted, groups)
        scale = dense.new_ones(len(dense), len(inputs))
        for rows in row_parts(dense, (len(inputs) + 1) * (len(fitted) + len(inputs))):
            weight = result[rows].copy_(base[rows])
            if self.mean:
                _restore_means(weight, dense[rows], keep[rows], mean, direction)
            if self.scale and len(fitted):
                scale[rows] = self._scales(_grouped(weight, groups) @ inputs.mT, fitted @ dense[rows].T)
                weight.mul_(scale[rows].repeat_interleave(inputs.shape[2], 1)[:, : weight.shape[1]])
        before, after = output_errors(dense, [pruned, result], held_out)
        is_better = after <= before * (1 - self.min_gain)  # not where there is no held-out row: NaN
        result, after = torch.where(is_better, result, pruned), torch.where(is_better, after, before)
        shift_before, shift_after = output_errors(dense, [pruned, result], mean[None])
        report |= {
            "mean_shift_before": shift_before,
            "mean_shift_after": shift_after,
            "output_error_before": before,
            "output_error_after": after,
            "relative_output_error": after,
            "row_scale_min": scale.min(),
            "row_scale_mean": scale.mean(),
            "row_scale_max": scale.max(),
            "corrected": is_better.double(),
        }
        return result, report

    def _direction(self, statistics: InputStatistics, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """μ and μ / σ², σ² not below its floor."""
        mean, variance = statistics.mean, statistics.variance
        variance = variance.clamp_min(self.floor * variance.mean())
        return mean.to(dtype), (mean / variance).nan_to_num(0, 0, 0).to(dtype)

    def _scales(self, given: Tensor, wanted: Tensor) -> Tensor:
        """γ, (out_features, groups), of ŷ_ig (groups, out_features, samples) and y (samples, out_features).

        It is 1 where the pruned output is zero.
        """
        outputs = torch.cat([given, wanted.T[None]]).transpose(0, 1).contiguous()  # one product for A and b
        products = outputs @ outputs.mT
        products, target = products[:, :-1, :-1], products[:, :-1, -1]
        energy, diagonal = products.sum((1, 2)), products.diagonal(dim1=1, dim2=2)
        common = torch.where(energy > 0, target.sum(1) / energy, 1.0).clamp(self.min_scale, self.max_scale)
        ridge = torch.where(energy > 0, self.shrinkage * diagonal.mean(1), 1.0)
        diagonal.add_(ridge[:, None])
        scale, _ = torch.linalg.solve_ex(products, target + (ridge * common)[:, None])
        return scale.clamp(self.min_scale, self.max_scale)


def _restore_means(weight: Tensor, dense: Tensor, keep: Tensor, mean: Tensor, direction: Tensor) -> None:
    """Ŵ ← Ŵ + δ, in place; a row that keeps no channel with a mean stays as it is."""
    kept = keep * direction
    gain, shift = kept @ mean, dense @ mean - weight @ mean
    weight.addcmul_(torch.where(gain > 0, shift / gain, 0.0)[:, None], kept)


def _grouped(matrix: Tensor, groups: int) -> Tensor:
    """The columns in groups of adjacent ones, (groups, rows, columns of each); zeros fill the last."""
    rows, columns = matrix.shape
    width = -(-columns // groups)
    filled = pad(matrix, (0, -columns % width))
    return filled.view(rows, filled.shape[1] // width, width).transpose(0, 1)


def _spread(rows: Tensor, count: int) -> Tensor:
    """So many of the rows, evenly spaced: statistics hold more where the record's output error asks for them."""
    return rows if len(rows) <= count else rows[torch.arange(count, device=rows.device) * len(rows) // count]


def _split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to fit to, and rows held out: every fourth, so that both cover the whole calibration."""
    held_out = torch.arange(len(rows), device=rows.device) % HELD_OUT == HELD_OUT - 1
    return rows[~held_out], rows[held_out]
