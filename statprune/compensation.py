"""Energy compensation (EC): restore the energy that pruning took from columns and rows (paper §3.2)."""

from dataclasses import dataclass

from torch import Tensor

from statprune.statistics import InputStatistics


@dataclass(frozen=True)
class Energy:
    """Energy compensation of a pruned weight; it follows any method (paper §3.2).

    Attributes:
        columns: rescale columns first.
        rows: rescale rows second, on the result.
        min_scale: lower clamp of every scale (our reading; the paper names a clamp without bounds).
        max_scale: upper clamp of every scale.
        epsilon: added to the pruned energy before dividing.
    """

    columns: bool = True
    rows: bool = True
    min_scale: float = 0.5
    max_scale: float = 2.0
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(
                f"compensation.min_scale={self.min_scale} and max_scale={self.max_scale} are not a range; "
                "give 0 < min_scale ≤ max_scale"
            )
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
        weight = pruned
        report: dict[str, Tensor] = {}
        mask = keep.to(dense.dtype)
        means = [dense.mean(dim, keepdim=True) for dim in (0, 1)]
        energies = [energy(dense, mean, dim) for dim, mean in enumerate(means)]
        for dim, (name, wanted) in enumerate((("column", self.columns), ("row", self.rows))):
            if wanted:
                scale = self._scale(energies[dim], energy(weight, means[dim], dim))
                weight = (weight - means[dim]).mul_(scale).add_(means[dim]).mul_(mask)
                report |= {
                    f"{name}_scale_min": scale.min(),
                    f"{name}_scale_mean": scale.mean(),
                    f"{name}_scale_max": scale.max(),
                    f"{name}_scale_clamped": ((scale <= self.min_scale) | (scale >= self.max_scale)).double().mean(),
                }
        for dim, name in enumerate(("column", "row")):
            report[f"{name}_energy_ratio"] = energy(weight, means[dim], dim).sum() / energies[dim].sum()
        return weight, report

    def _scale(self, dense: Tensor, pruned: Tensor) -> Tensor:
        return (dense / (pruned + self.epsilon)).sqrt().clamp(self.min_scale, self.max_scale)


def energy(weight: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Σ (W − μ)² along ``dim``, over all entries: a pruned zero counts μ² (paper §3.2)."""
    return (weight - mean).square_().sum(dim, keepdim=True)
