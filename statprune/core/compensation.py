"""Energy compensation (EC): restore the energy that pruning took from columns and rows (paper §3.2)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from statprune.core.parts import row_parts
from statprune.core.statistics import InputStatistics, StatisticsKind


class Compensation(Protocol):
    """What changes the kept weights once the mask is fixed: a dataclass of its options."""

    name: ClassVar[str]

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that ``apply`` reads."""

    @property
    def samples(self) -> int:
        """How many rows of each input it wants to see."""

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compensated weight and report, from original and pruned weight (out_features, in_features) and mask.

        What fits to outputs reports its ``relative_output_error``, on rows that it did not fit to.
        """


@dataclass(frozen=True)
class Energy:
    """Energy compensation of a pruned weight; it follows any method (paper §3.2).

    Attributes:
        columns: rescale columns first.
        rows: rescale rows second, on the result.
        rows_first: rows before columns, the other order (not the paper's).
        min_scale: lower clamp of every scale (our reading; the paper names a clamp without bounds).
        max_scale: upper clamp of every scale.
        epsilon: added to the pruned energy before dividing.
    """

    columns: bool = True
    rows: bool = True
    rows_first: bool = False
    min_scale: float = 0.5
    max_scale: float = 2.0
    epsilon: float = 1e-12

    name: ClassVar[str] = "energy"
    needs: ClassVar[StatisticsKind] = StatisticsKind.NONE
    samples: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_clamp(self.min_scale, self.max_scale)
        if not self.epsilon >= 0:
            raise ValueError(f"compensation.epsilon={self.epsilon} is negative; give a small number such as 1e-12")

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compensated weight, and what was done.

        Args:
            dense: original weight W, (out_features, in_features).
            pruned: pruned weight W̃, same shape; zero where ``keep`` is False.
            keep: mask M, bool.
            statistics: of the layer's input; not used by this compensation.

        Returns:
            The weight with the mask applied again, and the scales' range with the energy ratios Ẽ/E that remain:
            since the mask comes last and rows change columns, neither energy is met exactly.
        """
        parts = row_parts(dense)
        if self.rows and self.rows_first:
            alone = replace(self, columns=False, rows_first=False)
            pruned, rows_report = alone.apply(dense, pruned, keep, statistics)
            result, report = replace(self, rows=False).apply(dense, pruned, keep, statistics)
            return result, rows_report | report
        column_mean, row_mean = (dense.mean(dim, keepdim=True) for dim in (0, 1))
        column_dense = _column_energy(dense, column_mean, parts)
        row_dense, row_after, row_scale = (torch.ones_like(row_mean) for _ in range(3))
        column_scale, column_after = torch.ones_like(column_mean), torch.zeros_like(column_mean)
        if self.columns:
            column_scale = self._scale(column_dense, _column_energy(pruned, column_mean, parts))
        result = torch.empty_like(dense)
        for rows in parts:
            weight, mask = result[rows].copy_(pruned[rows]), keep[rows].to(dense.dtype)
            row_dense[rows] = energy(dense[rows], row_mean[rows], 1)
            if self.columns:
                _rescale(weight, column_mean, column_scale, mask)
            if self.rows:
                row_scale[rows] = self._scale(row_dense[rows], energy(weight, row_mean[rows], 1))
                _rescale(weight, row_mean[rows], row_scale[rows], mask)
            column_after += energy(weight, column_mean, 0)
            row_after[rows] = energy(weight, row_mean[rows], 1)
        report = self._described("column", column_scale) if self.columns else {}
        report |= self._described("row", row_scale) if self.rows else {}
        report["column_energy_ratio"] = column_after.sum() / column_dense.sum()
        report["row_energy_ratio"] = row_after.sum() / row_dense.sum()
        return result, report

    def _scale(self, dense: Tensor, pruned: Tensor) -> Tensor:
        given = pruned + self.epsilon
        ratio = torch.where(given == 0, 1.0, dense / given)  # nothing to scale, and no epsilon
        return ratio.sqrt().clamp(self.min_scale, self.max_scale)

    def _described(self, name: str, scale: Tensor) -> dict[str, Tensor]:
        return {
            f"{name}_scale_min": scale.min(),
            f"{name}_scale_mean": scale.mean(),
            f"{name}_scale_max": scale.max(),
            f"{name}_scale_clamped": ((scale <= self.min_scale) | (scale >= self.max_scale)).double().mean(),
        }


def check_clamp(min_scale: float, max_scale: float) -> None:
    """Raises ValueError unless scales can be clamped so."""
    if not 0 < min_scale <= max_scale:
        raise ValueError(
            f"compensation.min_scale={min_scale} and max_scale={max_scale} are not a range; "
            "give 0 < min_scale ≤ max_scale"
        )


def energy(weight: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Σ (W − μ)² along ``dim``, over all entries: a pruned zero counts μ² (paper §3.2)."""
    return (weight - mean).square_().sum(dim, keepdim=True)


def _column_energy(weight: Tensor, mean: Tensor, parts: list[slice]) -> Tensor:
    total = torch.zeros_like(mean)
    for rows in parts:
        total += energy(weight[rows], mean, 0)
    return total


def _rescale(weight: Tensor, mean: Tensor, scale: Tensor, mask: Tensor) -> None:
    """Ŵ ← M · (μ + s (Ŵ − μ)), in place."""
    weight.sub_(mean).mul_(scale).add_(mean).mul_(mask)
