"""Least squares on a fixed mask: the kept weights whose outputs are nearest to the dense weight's."""

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.compensation import Compensation
from statprune.core.conjugate_gradients import SecondMoments, fit_kept_weights, share_left
from statprune.core.finite import check_gram, dead_channels
from statprune.core.held_out import check_gate, evenly_spaced, judged, split
from statprune.core.output_errors import output_errors
from statprune.core.solution import Diagnostics
from statprune.core.statistics import InputStatistics, StatisticsKind

NOISE = 1e-6  # share of a channel's energy that is rounding error once the held-out rows are taken from the rest


class FittedTo(Enum):
    """Which inputs the outputs are compared on.

    gram: all tokens, by the Gram matrix of all channels; a compensation leaves out those that judge it. rows: the
    sampled rows that are not held out, and no matrix of channels by channels.
    """

    gram = "gram"
    rows = "rows"


DAMPINGS = {FittedTo.gram: (0.01, 0.1), FittedTo.rows: (0.1, 0.3, 1.0, 3.0)}  # where ``damping`` gives none
OUTPUTS_TO_CHOOSE_BY = 64  # of a matrix, so that several ridges cost little more than one


@dataclass(frozen=True)
class _Problem:
    """One matrix's fit: the arguments of ``fit_kept_weights`` but for λ, and the rows that judge it."""

    dense: Tensor
    start: Tensor
    keep: Tensor
    moments: SecondMoments
    held_out: Tensor
    steps: int

    def fitted(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """What ``fit_kept_weights`` returns."""
        return fit_kept_weights(self.dense, self.start, self.keep, self.moments, damping, self.steps)

    def held_out_error(self, damping: Tensor) -> Tensor:
        """The relative output error of the fit on the held-out rows."""
        return output_errors(self.dense, [self.fitted(damping)[0]], self.held_out)[0]

    def sampled(self, outputs: int) -> "_Problem":
        """The same for evenly spaced output rows, at most as many as given."""
        dense, start, keep = (evenly_spaced(part, outputs) for part in (self.dense, self.start, self.keep))
        return replace(self, dense=dense, start=start, keep=keep)


@dataclass(frozen=True)
class LeastSquares(Compensation):
    """Least squares on a fixed mask, by conjugate gradients; it follows any method.

    Row by row, with w the dense weights and S what the mask keeps, it lowers

        (w − v)ᵀ (G + λI) (w − v)   over v on S, whose minimum is ((G + λI) v)_S = ((G + λI) w)_S,

    from v = ŵ, the method's weights, by ``steps`` of conjugate gradients that the diagonal preconditions and the mask
    confines: ALPS' last stage (Meng et al., NeurIPS 2024, arXiv 2406.07831; ten steps there). A step is one product of
    the weight with G for all rows at once, and with sampled rows X, where G = XᵀX, two thin ones.

    λ is a share of G's mean diagonal and stands on both sides, as in ALPS: it draws the kept weights towards the dense
    ones. Deviations: λ is chosen from several, and held-out rows can refuse the fit. A matrix whose relative output
    error on held-out rows would not fall by a share of ``min_gain`` stays as it was. These rows are every fourth of at
    most ``samples`` sampled ones; Σ x xᵀ over them is subtracted from G, so that they are not fitted to. After a method
    such as SparseGPT, which has seen all tokens, the error before is that of rows it was fitted to, and the gate is
    strict. Where λ is chosen among several, the held-out rows have chosen it, one number for a matrix, and then judge
    the fit.

    G holds raw products, not deviations from the means: E[xxᵀ] = Cov(x) + μμᵀ. The loss is therefore the outputs'
    variance and their squared mean shift together, and the kept weights bring the means back as far as that pays;
    the first step of ``moments`` brings them back but for rounding, by the diagonal of the covariance alone.

    What stays as it was: the kept weights of channels that are zero in all inputs that are fitted to (dead ones), rows
    that keep nothing, and a matrix without held-out rows, such as an expert that fewer than four sampled tokens reach,
    since nothing can judge it. With fewer tokens than channels G is singular and λ decides what it does not.

    Attributes:
        statistics: which inputs the outputs are compared on.
        steps: of conjugate gradients; each is a product with G [steps].
        damping: λ, as a share of G's mean diagonal: a list of one, or of several, of which each matrix gets the one
            whose fit of at most 64 of its outputs has the least error on the held-out rows; []: with gram 0.01, which
            is SparseGPT's, and 0.1; with rows 0.1, 0.3, 1 and 3 [fraction].
        samples: how many rows are used of each input, at most; one in four is held out. An expert gets as many of
            them as its share of the tokens [rows].
        min_gain: least share of the held-out output error that the fit must take away; 0 only asks that the error does
            not grow [fraction].
    """

    statistics: FittedTo = FittedTo.gram
    steps: int = 10
    damping: tuple[float, ...] = ()
    samples: int = 512
    min_gain: float = 0.02

    named_options: ClassVar[tuple[str, ...]] = ("statistics",)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"compensation.steps={self.steps} is too small; give at least 1, or compensation=none")
        if not all(isinstance(value, int | float) and 0 < value < math.inf for value in self.damping):
            raise ValueError(
                f"compensation.damping=[{','.join(map(str, self.damping))}] is no list of positive numbers; give one "
                "ridge such as [0.01], some to choose from such as [0.1,1], or [] for the default"
            )
        check_gate(self.samples, self.min_gain)

    @property
    def needs(self) -> StatisticsKind:
        """The Gram matrix, or the means, which the report tells the shift of."""
        return StatisticsKind.GRAM if self.statistics is FittedTo.gram else StatisticsKind.MOMENTS

    def variant(self) -> tuple[str, ...]:
        """Whether sampled rows are all that is fitted to."""
        return ("rows",) if self.statistics is FittedTo.rows else ()

    def apply(
        self, dense: Tensor, pruned: Tensor, keep: Tensor, statistics: InputStatistics
    ) -> tuple[Tensor, Diagnostics]:
        """Fit a pruned weight.

        Args:
            dense: original weight W, (out_features, in_features).
            pruned: pruned weight Ŵ, same shape; zero where ``keep`` is False.
            keep: mask M, bool.
            statistics: of the matrix's input, with sampled rows, and the Gram matrix where it is fitted to.

        Returns:
            The weight, zero where it was pruned, and diagnostics: ``output_error_before`` and ``output_error_after``
            (relative, on the held-out rows; the latter also as ``relative_output_error``), ``bias_output_error`` (what
            a bias would leave of the former, as ``error_without_and_with_bias`` has it), ``mean_shift_before`` and
            ``mean_shift_after`` (norm of the outputs' mean shift over that of their means), ``fit_damping`` (the λ that
            was taken), ``fit_steps``, ``fit_residual`` (the gradient's preconditioned norm after the steps over that
            before) and ``corrected`` (1, or 0 where the matrix stayed as it was).

        Raises:
            ValueError: the Gram matrix is not finite, or inputs are so small that their squares vanish.
        """
        fitted, held_out = split(evenly_spaced(statistics.rows, self.samples))
        held_out = held_out.to(dense.dtype)
        key = ("least squares", self.statistics, self.samples, dense.dtype)
        gram = statistics.once(key, lambda: self._second_moments(statistics, fitted, held_out).to(dense.dtype))
        problem = _Problem(dense, pruned, keep & (gram.diagonal > 0), gram, held_out, self.steps)
        weight, damping, residual = pruned, dense.new_full((), math.nan), dense.new_full((), math.nan)
        if len(held_out):
            damping = self._chosen(problem)
            weight, left = problem.fitted(damping)
            residual = share_left(left)
        own = judged(dense, pruned, weight, held_out, statistics.mean.to(dense.dtype), self.min_gain)
        return own.weight, {
            **own.diagnostics,
            "fit_damping": damping,
            "fit_steps": float(self.steps if len(held_out) else 0),
            "fit_residual": residual,
            "corrected": own.is_better.double(),
        }

    def _chosen(self, problem: _Problem) -> Tensor:
        """λ, a scalar: the candidate whose fit of some outputs has the least error on the held-out rows."""
        candidates = [
            problem.dense.new_full((), value, dtype=torch.float64)
            for value in self.damping or DAMPINGS[self.statistics]
        ]
        if len(candidates) == 1:
            return candidates[0]
        some = problem.sampled(OUTPUTS_TO_CHOOSE_BY)
        errors = torch.stack([some.held_out_error(damping) for damping in candidates])
        best = errors.nan_to_num(math.inf).argmin(0, keepdim=True)
        return torch.stack(candidates).gather(0, best)[0]  # an index would make a GPU wait

    def _second_moments(self, statistics: InputStatistics, fitted: Tensor, held_out: Tensor) -> SecondMoments:
        """G of what is fitted to, float64."""
        if self.statistics is FittedTo.rows:
            rows = fitted.double()
            return SecondMoments(rows.square().sum(0), rows=rows).in_units()
        gram = statistics.gram
        check_gram(gram)
        dead_channels(gram, statistics, "compensation")
        rows = held_out.double()
        fitted_gram = torch.addmm(gram, rows.T, rows, alpha=-1)
        diagonal = fitted_gram.diagonal()
        diagonal = torch.where(diagonal > NOISE * gram.diagonal(), diagonal, 0.0)  # else only held-out rows have it
        return SecondMoments(diagonal, gram=fitted_gram).in_units()
