"""First-order correction: put back what pruning took from every output's mean and scale. Ours, not the paper's."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from statprune.core.compensation import Compensation, Energy, check_clamp, label_of_halves, one_of_two
from statprune.core.held_out import check_gate, evenly_spaced, judged, split
from statprune.core.row_chunks import row_chunks
from statprune.core.solution import Diagnostics
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.core.switches import check_unused

ROWS_PER_SCALE = 4  # with fewer rows to fit each scale, as experts have that few tokens reach, there are fewer scales


@dataclass(frozen=True)
class Moments(Compensation):
    """Correction of a pruned weight by its inputs' means and variances; it follows any method (ours, not the paper's).

    Mean: pruning shifts output i's mean by m_i = Σ_j (W_ij − Ŵ_ij) μ_j. Many changes δ of the kept weights undo that,
    Σ_j M_ij δ_ij μ_j = m_i; the one applied adds the least output variance Σ_j δ_ij² σ_j² where channels are not
    correlated. By Lagrange's condition 2 δ_ij σ_j² = λ_i μ_j on the kept weights it is

        δ_ij = M_ij (μ_j / σ_j²) m_i / Σ_k M_ik μ_k² / σ_k².

    Scale: then every output row gets one factor, γ_i = ⟨y_i, ŷ_i⟩ / ⟨ŷ_i, ŷ_i⟩, the least-squares fit of ŷ_i = x · Ŵ_i
    to y_i = x · W_i over sampled inputs x. With G ``groups`` of adjacent channels a row has a factor for each group:
    ŷ_i = Σ_g γ_ig ŷ_ig, where the γ_ig solve

        (A_i + ρ tr(A_i)/G I) γ = b_i + ρ tr(A_i)/G γ_i 1,   A_i = ⟨ŷ_ig, ŷ_ih⟩,  b_i = ⟨ŷ_ig, y_i⟩,

    with the ``shrinkage`` ρ and the clamped common factor γ_i: a ridge towards γ_i that keeps the factors from being
    fitted to the noise of a few hundred rows. With one group this is the single factor above.

    What others had first: that pruning should restore the outputs' means is FLAP's (An et al., AAAI 2024, arXiv
    2312.11983) and STADE's (arXiv 2503.22451), which add m_i to the module's bias; and STADE's score, W² Var(x),
    ranks as |W| σ does. Ours puts the means into the kept weights, so that no module needs a bias that it does not
    have; fits scales; and has held-out rows judge both (docs/methods/corrections-measured.md).

    The scales move the means again, a little, and both steps can be wrong for a matrix whose sample says little. The
    relative output error is therefore compared before and after on rows that the scales were not fitted to, in the
    precision of the computation; a matrix for which it would not fall by a share of ``min_gain`` stays as it was. A
    smaller gain is no evidence: a method such as SparseGPT has fitted the weight to the held-out rows, too.

    Attributes:
        mean: put the means back.
        scale: scale the rows.
        energy_first: begin with the paper's energy compensation, with its defaults (§3.2); a matrix that held-out rows
            refuse has neither, and its scales are only reported.
        groups: how many groups of adjacent channels have their own factor in every row; fewer where there are fewer
            than four rows to fit each factor [groups].
        shrinkage: ridge towards the row's common factor, as a share of the groups' mean energy [fraction].
        floor: least variance of a channel, as a share of the mean variance [fraction].
        min_scale: lower clamp of γ.
        max_scale: upper clamp of γ.
        samples: how many rows are used of each input, at most; one in four is held out. An expert gets as many of
            them as its share of the tokens; which ones depends on the batches [rows].
        min_gain: least share of the held-out output error that the correction must take away; 0 only asks that the
            error does not grow [fraction].
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

    named_options: ClassVar[tuple[str, ...]] = ("mean", "scale", "energy_first")
    needs: ClassVar[StatisticsKind] = StatisticsKind.MOMENTS

    def __post_init__(self) -> None:
        check_clamp(self.min_scale, self.max_scale)
        if self.groups < 1:
            raise ValueError(f"compensation.groups={self.groups} is too small; give at least 1")
        if not 0 < self.shrinkage < math.inf:
            raise ValueError(f"compensation.shrinkage={self.shrinkage} is not positive; give a ridge such as 0.3")
        if not 0 < self.floor <= 1:
            raise ValueError(f"compensation.floor={self.floor} is outside (0, 1]; give a small share such as 1e-3")
        check_gate(self.samples, self.min_gain)
        if not self.mean:
            check_unused(self, ("floor",), "compensation", "mean=false")
        if not self.scale:
            names = ("groups", "shrinkage", "min_scale", "max_scale")
            check_unused(self, names, "compensation", "scale=false")

    def variant(self) -> tuple[str, ...]:
        """Which half is on where one is off, and whether the energy compensation comes first."""
        return (*one_of_two("mean", self.mean, "scale", self.scale), *(("energy first",) if self.energy_first else ()))

    def label(self, name: str) -> str:
        """The half that is on, alone, or the name."""
        return label_of_halves(name, self.variant())

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, Diagnostics]:
        """Correct a pruned weight.

        Args:
            dense: original weight W, (out_features, in_features).
            pruned: pruned weight Ŵ, same shape; zero where ``keep`` is False.
            keep: mask M, bool.
            statistics: of the matrix's input, with moments and sampled rows.

        Returns:
            The weight, zero where it was pruned, and diagnostics: ``mean_shift_before`` and ``mean_shift_after``
            (‖m‖ over the norm of the outputs' means), ``output_error_before`` and ``output_error_after`` (relative,
            on the held-out rows; the latter also as ``relative_output_error``), ``bias_output_error`` (what FLAP's and
            STADE's bias would leave of the former), ``row_scale_min``, ``_mean`` and
            ``_max`` (of the fitted factors), and ``corrected`` (1, or 0 where the matrix stayed as it was).
        """
        fitted, held_out = split(evenly_spaced(statistics.rows, self.samples).to(dense.dtype))
        mean, direction = self._direction(statistics, dense.dtype)
        base: Tensor = pruned
        diagnostics: Diagnostics = {}
        if self.energy_first:
            base, diagnostics = Energy().apply(dense, pruned, keep, statistics)
        result = torch.empty_like(dense)
        groups = max(1, min(self.groups, len(fitted) // ROWS_PER_SCALE))
        inputs = _grouped(fitted, groups)
        scale = dense.new_ones(len(dense), len(inputs))
        for rows in row_chunks(dense, (len(inputs) + 1) * (len(fitted) + len(inputs))):
            weight = result[rows].copy_(base[rows])
            if self.mean:
                _restore_means(weight, dense[rows], keep[rows], mean, direction)
            if self.scale and len(fitted):
                scale[rows] = self._scales(_grouped(weight, groups) @ inputs.mT, fitted @ dense[rows].T)
                weight.mul_(scale[rows].repeat_interleave(inputs.shape[2], 1)[:, : weight.shape[1]])
        own = judged(dense, pruned, result, held_out, mean, self.min_gain)
        diagnostics |= {
            **own.diagnostics,
            "row_scale_min": scale.min(),
            "row_scale_mean": scale.mean(),
            "row_scale_max": scale.max(),
            "corrected": own.is_better.double(),
        }
        return own.weight, diagnostics

    def _direction(self, statistics: InputStatistics, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """μ and μ / σ², with σ² not below its floor."""
        mean, variance = statistics.mean, statistics.variance
        variance = variance.clamp_min(self.floor * variance.mean())
        return mean.to(dtype), (mean / variance).nan_to_num(0, 0, 0).to(dtype)

    def _scales(self, pruned_outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """The factors γ, (out_features, groups); 1 where the pruned output is zero.

        Args:
            pruned_outputs: ŷ_ig, (groups, out_features, samples).
            dense_outputs: y, (samples, out_features).
        """
        outputs = torch.cat([pruned_outputs, dense_outputs.T[None]]).transpose(0, 1).contiguous()  # one product: A, b
        products = outputs @ outputs.mT
        products, target = products[:, :-1, :-1], products[:, :-1, -1]
        energy, diagonal = products.sum((1, 2)), products.diagonal(dim1=1, dim2=2)
        common = torch.where(energy > 0, target.sum(1) / energy, 1.0).clamp(self.min_scale, self.max_scale)
        ridge = torch.where(energy > 0, self.shrinkage * diagonal.mean(1), 1.0)
        diagonal.add_(ridge[:, None])
        scale = _solve_positive(products, target + (ridge * common)[:, None])
        return scale.clamp(self.min_scale, self.max_scale)


def _solve_positive(matrices: Tensor, target: Tensor) -> Tensor:
    """Solve a positive definite system for every row; by Cholesky on a GPU, where LU makes the host wait.

    Args:
        matrices: (rows, groups, groups).
        target: (rows, groups).
    """
    if matrices.is_cuda:
        lower, _ = torch.linalg.cholesky_ex(matrices)
        return torch.cholesky_solve(target[..., None], lower)[..., 0]
    solution, _ = torch.linalg.solve_ex(matrices, target)
    return solution


def _restore_means(weight: Tensor, dense: Tensor, keep: Tensor, mean: Tensor, direction: Tensor) -> None:
    """Ŵ ← Ŵ + δ, in place; a row that keeps no channel with a mean stays as it is."""
    kept_direction = keep * direction
    gain, shift = kept_direction @ mean, dense @ mean - weight @ mean
    weight.addcmul_(torch.where(gain > 0, shift / gain, 0.0)[:, None], kept_direction)


def _grouped(matrix: Tensor, groups: int) -> Tensor:
    """Groups of adjacent columns, (groups, rows, columns of a group); zeros fill the last group."""
    rows, columns = matrix.shape
    width = -(-columns // groups)
    padded = pad(matrix, (0, -columns % width))
    return padded.view(rows, padded.shape[1] // width, width).transpose(0, 1)
