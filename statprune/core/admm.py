"""Gradual pruning by the alternating direction method of multipliers, from all inputs or from sampled ones."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from statprune.core.channel_units import ChannelUnits, largest_weight
from statprune.core.column_major import column_major_copy
from statprune.core.conjugate_gradients import WORKING_COPIES, SecondMoments, fit_kept_weights, share_left
from statprune.core.finite import check_gram, dead_channels
from statprune.core.held_out import evenly_spaced, split
from statprune.core.least_squares import FittedTo
from statprune.core.methods import Method
from statprune.core.patterns import Pattern
from statprune.core.solution import Diagnostics, Solution
from statprune.core.statistics import InputStatistics, StatisticsKind

SAMPLES = 1024  # where ``samples`` is not given
LEAST_OWN_DAMPING = 0.01  # where ``damping`` is not given, however many tokens there are
CHANNELS = 64  # whose unexplained variance is looked at
LEAST_DAMPING = 1e-6  # below it a channel's unit is lost in float32
DEAD_LENGTH = 1e-6  # of the mean length: of dead channels the largest weights stay, where any do


@dataclass(frozen=True)
class _System:
    """G̃ + λI, with G̃ the inputs' second moments in units that give it a diagonal of ones, and its inverse with ρ.

    Attributes:
        units: by which inputs are divided, in units of their mean.
        moments: G̃, or the sampled rows X̃ with X̃ᵀX̃ ≈ G̃.
        damping: λ.
        rho: ρ, a scalar.
        inverse: (G̃ + (λ + ρ) I)⁻¹, (in_features, in_features); with sampled rows ((λ + ρ) I + X̃X̃ᵀ)⁻¹X̃,
            (samples, in_features).
    """

    units: ChannelUnits
    moments: SecondMoments
    damping: float
    rho: Tensor
    inverse: Tensor

    def to(self, dtype: torch.dtype) -> "_System":
        """The same in another precision."""
        units = replace(self.units, lengths=self.units.lengths.to(dtype))
        moments, rho, inverse = self.moments.to(dtype), self.rho.to(dtype), self.inverse.to(dtype)
        return replace(self, units=units, moments=moments, rho=rho, inverse=inverse)

    def times_inverse(self, values: Tensor) -> Tensor:
        """V (G̃ + (λ + ρ) I)⁻¹ of V, (rows, in_features)."""
        if self.moments.rows is None:
            return values @ self.inverse
        # Woodbury's identity: two thin products, and no matrix of channels by channels
        return torch.sub(values, values @ self.moments.rows.T @ self.inverse).div_(self.damping + self.rho)


@dataclass(frozen=True)
class Admm(Method):
    """Gradual pruning by ADMM: the mask grows sparser while the weights answer it (Boža, arXiv 2401.02938).

    W̄ and G̃ are the weight and G = XᵀX in units that give G̃ a diagonal of ones, so that a magnitude in W̄ is Wanda's
    score. From D = W̄ and U = 0, a round r is

        B = (W̄ (G̃ + λI) + ρ (D − U)) (G̃ + (λ + ρ) I)⁻¹,   which is   W̄ + ρ (D − U − W̄) (G̃ + (λ + ρ) I)⁻¹;
        D = the largest of B + U, others 0;    U ← U + B − D.

    The pattern's share s of the weights is removed by degrees: s (1 − (1 − r / ramp)³) in round r, and s from round
    ``ramp`` on; N:M removes whole weights of each group (2:4 begins with 3:4), and a plugin's pattern that has nothing
    between removes all from the start. ``steps`` of conjugate gradients on the last mask, from D, come last
    (``conjugate_gradients``): what is left is least squares' solution on it but for rounding.

    A round is one product of the weight with a matrix that is inverted once for all matrices with the input. ALPS
    (Meng et al., arXiv 2406.07831) is the same iteration with ρ growing until the support stands still, at full
    sparsity from the first round.

    ``statistics=rows`` needs no matrix of channels by channels: G̃ is that of the sampled rows, each channel in units
    of its norm over all tokens, and λI draws a covariance of few rows towards its diagonal, which all tokens have told.
    Products and the inverse are those of the rows (Woodbury). Every fourth row is left out, and the report's output
    error is measured on these, unless a compensation that judges itself follows: its held-out rows are among those that
    were fitted to here, so that its gate is strict and the two errors are not to be compared.

    ρ decides how large a pruned weight's B + U grows beside the kept ones: by the factor (1 + λ) / ρ where channels are
    not correlated, so that masks waver below 1 + λ and freeze far above. In general 1 + λ is 1 / [(G̃ + λI)⁻¹]_jj, the
    variance of channel j that the others leave unexplained, and ρ is ``rho`` times its mean over at most 64 channels.

    λ stands for what so few tokens can't tell. Without ``damping`` it is d / n, the channels over the tokens that are
    fitted to, and at least 0.01: the noise of a covariance of n tokens in d channels grows so (Marchenko and Pastur,
    1967), and on other texts the least error was near it for 768, 2,048 and 8,192 tokens in 576 and 1,536 channels.

    Deviations from the paper and its code: λ by the tokens (0.1 there), ρ = 1.5 of that unit (1 there, whatever the
    inputs are), 6 rounds of which 5 are the ramp (20 and 15), and conjugate gradients in place of rounds on the final
    mask: docs/methods/admm-measured.md says what each is worth. Weights compete within rows, over the whole matrix
    there. For unstructured sparsity its public code prunes at full sparsity from the first round on, which is
    ``ramp=1``. At N:M every group loses whole weights by degrees; there the two largest of each four are safe, and a
    growing share of the matrix's smallest others goes. Kept weights of rows that lose nothing, and of channels that are
    zero in all inputs, are the dense ones. Weights are in units of the largest while they are solved.

    Attributes:
        statistics: which inputs the outputs are compared on.
        damping: λ, as a share of each channel's mean square; None: channels per fitted token, at least 0.01 [fraction].
        rho: ρ, in units of what the other channels leave unexplained of a channel.
        rounds: of ADMM [rounds].
        ramp: the round that has the pattern's sparsity for the first time [rounds].
        steps: of conjugate gradients on the last mask [steps].
        samples: with rows, how many are used of each input, at most; None: 1024 [rows].
    """

    statistics: FittedTo = FittedTo.gram
    damping: float | None = None
    rho: float = 1.5
    rounds: int = 6
    ramp: int = 5
    steps: int = 4
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.damping is not None and not LEAST_DAMPING <= self.damping < math.inf:
            raise ValueError(f"method.damping={self.damping} is below {LEAST_DAMPING}; give a share such as 0.01")
        if not LEAST_DAMPING <= self.rho < math.inf:
            raise ValueError(f"method.rho={self.rho} is below {LEAST_DAMPING}; give a number such as 1.5")
        if not 1 <= self.ramp <= self.rounds:
            raise ValueError(
                f"method.ramp={self.ramp} is outside [1, method.rounds={self.rounds}]; the last round has to have the "
                "pattern's sparsity"
            )
        if self.steps < 0:
            raise ValueError(f"method.steps={self.steps} is negative; give 0 or more")
        if self.samples is not None and self.statistics is not FittedTo.rows:
            raise ValueError(
                f"method.samples={self.samples} has no effect with method.statistics=gram; give rows there"
            )
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"method.samples={self.samples} is too small; give at least 1")

    @property
    def needs(self) -> StatisticsKind:
        """The Gram matrix; with sampled rows each channel's norm over all tokens."""
        return StatisticsKind.GRAM if self.statistics is FittedTo.gram else StatisticsKind.MOMENTS

    @property
    def sampled_rows(self) -> int:
        """How many rows of each input ``solve`` wants to see."""
        return (self.samples or SAMPLES) if self.statistics is FittedTo.rows else 0

    @property
    def working_copies(self) -> int:
        """Those of the last stage."""
        return WORKING_COPIES

    @property
    def gram_copies(self) -> int:
        """In float64 G̃, and the factor that becomes the inverse; both once more, in the weights' precision."""
        return 6 if self.needs >= StatisticsKind.GRAM else 0

    def unseen(self, rows: Tensor) -> Tensor:
        """The sampled rows that nothing was fitted to: every fourth, where sampled rows are all that is fitted to."""
        return split(evenly_spaced(rows, self.sampled_rows))[1] if self.statistics is FittedTo.rows else rows

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Prune one weight of shape (out_features, in_features).

        Diagnostics: ``support_change`` (weights that came into the mask or left it in the last round, as a share of
        what is kept), ``fit_residual`` (the gradient's preconditioned norm after the last stage over that before) and
        ``dead_columns``.

        Raises:
            ValueError: the Gram matrix is not finite, or inputs are so small that their squares vanish.
        """
        system: _System = statistics.once(("admm", weight.dtype, self), lambda: self._system(statistics, weight.dtype))
        unit = largest_weight(weight)
        dense = system.units.of(weight, unit)
        start, keep, change = self._search(dense, system, pattern)
        damping = dense.new_full((), system.damping)
        fitted, left = fit_kept_weights(dense, start, keep, system.moments, damping, self.steps)
        result = system.units.restored(weight, unit, fitted, keep)
        diagnostics: Diagnostics = {
            "support_change": change,
            "fit_residual": share_left(left),
            "dead_columns": system.units.is_dead.sum(),
        }
        return Solution(result, keep, diagnostics)

    def _search(self, dense: Tensor, system: _System, pattern: Pattern) -> tuple[Tensor, Tensor, Tensor]:
        """Take the rounds; D, its mask, and how much the last round changed of it.

        Args:
            dense: W̄, (out_features, in_features).
            system: G̃ + λI.
            pattern: selects the mask.
        """
        sought = dense
        keep = seen = pattern.partial(self._share(1)).select(dense.abs())
        for number in range(2, self.rounds + 1):
            weight = sought * keep.to(sought.dtype)
            dual = sought - weight
            sought = system.times_inverse(weight.sub_(dual).sub_(dense)).mul_(system.rho).add_(dense).add_(dual)
            seen, keep = keep, pattern.partial(self._share(number)).select(sought.abs())
        change = (keep != seen).sum() / keep.sum().clamp_min(1)
        return sought * keep.to(sought.dtype), keep, change

    def _share(self, number: int) -> float:
        """Which share of the weights that the pattern removes is removed in a round, from the first on."""
        return 1 - (1 - min(number / self.ramp, 1)) ** 3

    def _system(self, statistics: InputStatistics, dtype: torch.dtype) -> _System:
        """What matrices with one input share, computed in float64."""
        of_inputs = self._of_rows if self.statistics is FittedTo.rows else self._of_gram
        return of_inputs(statistics).to(dtype)

    def _lambda(self, channels: int, tokens: int) -> float:
        """λ."""
        return max(LEAST_OWN_DAMPING, channels / max(tokens, 1)) if self.damping is None else self.damping

    def _of_gram(self, statistics: InputStatistics) -> _System:
        """From all tokens."""
        check_gram(statistics.gram)
        is_dead = dead_channels(statistics.gram, statistics, "method")
        lengths = statistics.gram.diagonal().sqrt()
        unit = torch.where(is_dead, 1.0, lengths)
        gram = (statistics.gram / unit).div_(unit[:, None])
        damping = self._lambda(len(gram), statistics.count)
        some = evenly_spaced(torch.arange(len(gram), device=gram.device), CHANNELS)
        units = functional.one_hot(some, len(gram)).to(gram.dtype).T
        precision = torch.cholesky_solve(units, _damped_factor(gram, damping)).mul_(units).sum(0)
        rho = self.rho * (1 / precision).mean()
        inverse = _damped_factor(gram, damping + rho)
        torch.cholesky_inverse(inverse, out=inverse)
        return _System(_units(lengths, is_dead), SecondMoments(gram.diagonal(), gram=gram), damping, rho, inverse)

    def _of_rows(self, statistics: InputStatistics) -> _System:
        """From sampled rows; without any the system is λI, and magnitudes by norms are all that is known."""
        norm = statistics.norm
        is_dead = norm == 0
        fitted = split(evenly_spaced(statistics.rows, self.sampled_rows))[0].double()
        unit = torch.where(is_dead, 1.0, norm / max(statistics.count, 1) ** 0.5) * max(len(fitted), 1) ** 0.5
        rows = fitted / unit
        damping = self._lambda(rows.shape[1], len(rows))
        products = rows @ rows.T
        eye = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        some = evenly_spaced(rows.T, CHANNELS).T
        explained = torch.cholesky_solve(some, torch.linalg.cholesky(products + damping * eye)).mul_(some).sum(0)
        rho = self.rho * (damping / (1 - explained)).mean()
        inverse = torch.cholesky_solve(rows, torch.linalg.cholesky(products + (damping + rho) * eye))
        moments = SecondMoments(rows.square().sum(0), rows=rows)
        return _System(_units(norm, is_dead), moments, damping, rho, inverse)


def _damped_factor(gram: Tensor, damping: float | Tensor) -> Tensor:
    """Lower Cholesky factor of G̃ + λI, in the memory of one matrix beside G̃."""
    work = column_major_copy(gram, gram.dtype)
    work.diagonal().add_(damping)
    return torch.linalg.cholesky(work, out=work)


def _units(lengths: Tensor, is_dead: Tensor) -> ChannelUnits:
    """Lengths in units of their mean, above zero for dead channels too."""
    return ChannelUnits(torch.where(is_dead, DEAD_LENGTH, lengths / lengths.mean()), is_dead)
