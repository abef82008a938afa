"""Energy compensation (EC): restore the energy that pruning took from columns and rows (arXiv 2602.07375, §3.2)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.row_chunks import row_chunks
from statprune.core.solution import Diagnostics
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.core.switches import check_unused
from statprune.system.registry import Registry, subclass_of

OFF = "off"  # in a variant: neither half is on


class Compensation(ABC):
    """A change of the kept weights once the mask is fixed.

    A frozen dataclass of its options, which are the keys ``compensation.*``.
    """

    named_options: ClassVar[tuple[str, ...]] = ()  # options that ``variant`` tells of

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that ``apply`` reads."""
        return StatisticsKind.MOMENTS

    @property
    def samples(self) -> int:
        """How many rows of each input ``apply`` wants to see."""
        return 0

    def variant(self) -> tuple[str, ...]:
        """Words for options unlike the defaults, shown in the names of runs; those of ``named_options``."""
        return ()

    def label(self, name: str) -> str:
        """What tables and figures call it.

        Args:
            name: of the compensation.
        """
        return ", ".join([name, *self.variant()])

    @abstractmethod
    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, Diagnostics]:
        """Compensate a pruned weight; returns the weight and diagnostics.

        A compensation that fits the weight to outputs reports its ``relative_output_error`` on rows that it did not
        fit to.

        Args:
            dense: original weight, (out_features, in_features).
            pruned: pruned weight, same shape.
            keep: mask, bool, same shape.
            statistics: of the matrix's input.
        """


COMPENSATIONS: Registry[type[Compensation]] = Registry(
    "compensation",
    "statprune.compensations",
    {
        "energy": f"{__name__}:Energy",
        "moments": "statprune.core.moments:Moments",
        "least_squares": "statprune.core.least_squares:LeastSquares",
    },
    subclass_of(Compensation),
    # files of conf/compensation
    reserved=("none", "columns", "rows", "rows_first", "energy_moments", "sampled_least_squares"),
)


@dataclass(frozen=True)
class Energy(Compensation):
    """Energy compensation of a pruned weight; it follows any method (arXiv 2602.07375, §3.2).

    Columns first, with μ_j = mean_i W_ij. Sums are over all entries, so that a pruned zero counts μ_j²:

        E_j = Σ_i (W_ij − μ_j)²,   Ẽ_j = Σ_i (Ŵ_ij − μ_j)²,
        s_j = clamp(√(E_j / (Ẽ_j + ε)), min_scale, max_scale),
        Ŵ_ij ← M_ij (μ_j + s_j (Ŵ_ij − μ_j)).

    Then the same along every row of the result, with the dense rows' means and energies. The clamps' bounds, a clamp
    for rows too, and ε are our reading where the paper is silent.

    Attributes:
        columns: rescale the columns, first.
        rows: rescale the rows, second, on the result.
        rows_first: rescale the rows before the columns (not the paper's order).
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

    needs: ClassVar[StatisticsKind] = StatisticsKind.NONE
    named_options: ClassVar[tuple[str, ...]] = ("columns", "rows", "rows_first")

    def __post_init__(self) -> None:
        check_clamp(self.min_scale, self.max_scale)
        if not self.epsilon >= 0:
            raise ValueError(f"compensation.epsilon={self.epsilon} is negative; give a small number such as 1e-12")
        for half in ("columns", "rows"):
            if not getattr(self, half):
                check_unused(self, ("rows_first",), "compensation", f"{half}=false")

    def variant(self) -> tuple[str, ...]:
        """Which half is on where one is off, and whether the rows come first."""
        return (*one_of_two("columns", self.columns, "rows", self.rows), *(("rows first",) if self.rows_first else ()))

    def label(self, name: str) -> str:
        """The half that is on, alone, or the name."""
        return label_of_halves(name, self.variant())

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, Diagnostics]:
        """Compensate a pruned weight.

        Args:
            dense: original weight W, (out_features, in_features).
            pruned: pruned weight W̃, same shape; zero where ``keep`` is False.
            keep: mask M, bool.
            statistics: of the matrix's input; this compensation needs none.

        Returns:
            The weight with the mask applied again, and diagnostics: the range of the scales, and the energy ratios
            Ẽ/E that remain, since the mask comes last and rows change columns, so that neither energy is met exactly.

        Raises:
            ValueError: the squares of the weights overflow; on a GPU nothing is raised, and the weight is not finite.
        """
        chunks = row_chunks(dense)
        if self.rows_first:
            rows_only = replace(self, columns=False, rows_first=False)
            columns_only = replace(self, rows=False, rows_first=False)
            pruned, of_rows = rows_only.apply(dense, pruned, keep, statistics)
            result, of_columns = columns_only.apply(dense, pruned, keep, statistics)
            return result, of_rows | of_columns
        column_mean, row_mean = (dense.mean(dim, keepdim=True) for dim in (0, 1))
        column_dense = _column_energy(dense, column_mean, chunks)
        row_dense, row_after, row_scale = (torch.ones_like(row_mean) for _ in range(3))
        column_scale, column_after = torch.ones_like(column_mean), torch.zeros_like(column_mean)
        if self.columns:
            column_scale = self._scale(column_dense, _column_energy(pruned, column_mean, chunks))
        result = torch.empty_like(dense)
        for rows in chunks:
            weight, mask = result[rows].copy_(pruned[rows]), keep[rows].to(dense.dtype)
            row_dense[rows] = energy(dense[rows], row_mean[rows], 1)
            if self.columns:
                _rescale(weight, column_mean, column_scale, mask)
            if self.rows:
                row_scale[rows] = self._scale(row_dense[rows], energy(weight, row_mean[rows], 1))
                _rescale(weight, row_mean[rows], row_scale[rows], mask)
            column_after += energy(weight, column_mean, 0)
            row_after[rows] = energy(weight, row_mean[rows], 1)
        if not dense.is_cuda and not row_dense.isfinite().all():  # looking would make a GPU wait
            raise ValueError("its weights are so large that their energy overflows; choose another compensation")
        diagnostics = self._scale_range("column", column_scale) if self.columns else {}
        diagnostics |= self._scale_range("row", row_scale) if self.rows else {}
        diagnostics["column_energy_ratio"] = column_after.sum() / column_dense.sum()
        diagnostics["row_energy_ratio"] = row_after.sum() / row_dense.sum()
        return result, diagnostics

    def _scale(self, dense: Tensor, pruned: Tensor) -> Tensor:
        energy_left = pruned + self.epsilon
        ratio = torch.where(energy_left == 0, 1.0, dense / energy_left)  # 0: nothing to scale, and no epsilon
        return ratio.sqrt().clamp(self.min_scale, self.max_scale)

    def _scale_range(self, name: str, scale: Tensor) -> Diagnostics:
        return {
            f"{name}_scale_min": scale.min(),
            f"{name}_scale_mean": scale.mean(),
            f"{name}_scale_max": scale.max(),
            f"{name}_scale_clamped": ((scale <= self.min_scale) | (scale >= self.max_scale)).double().mean(),
        }


def one_of_two(first: str, has_first: bool, second: str, has_second: bool) -> tuple[str, ...]:
    """A word for two halves of which one or none is on; no word where both are."""
    if has_first and has_second:
        return ()
    return (first if has_first else second if has_second else OFF,)


def label_of_halves(name: str, variant: tuple[str, ...]) -> str:
    """What tables call a compensation with two halves: the name, or the half that is on; none where neither is."""
    if OFF in variant:
        return "none"
    has_both = all(word.endswith(" first") for word in variant)
    return ", ".join([*([name] if has_both else []), *variant])


def check_clamp(min_scale: float, max_scale: float) -> None:
    """Raise ValueError unless the two clamps are a range of positive scales."""
    if not 0 < min_scale <= max_scale:
        raise ValueError(
            f"compensation.min_scale={min_scale} and max_scale={max_scale} are not a range; "
            "give 0 < min_scale ≤ max_scale"
        )


def energy(weight: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Σ (W − μ)² along ``dim``, over all entries: a pruned zero counts μ² (the paper, §3.2).

    The result is (1, in_features) for ``dim`` 0 and (out_features, 1) for 1.
    """
    return (weight - mean).square_().sum(dim, keepdim=True)


def _column_energy(weight: Tensor, mean: Tensor, chunks: list[slice]) -> Tensor:
    total = torch.zeros_like(mean)
    for rows in chunks:
        total += energy(weight[rows], mean, 0)
    return total


def _rescale(weight: Tensor, mean: Tensor, scale: Tensor, mask: Tensor) -> None:
    """Ŵ ← M · (μ + s (Ŵ − μ)), in place."""
    weight.sub_(mean).mul_(scale).add_(mean).mul_(mask)
