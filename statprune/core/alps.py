"""ALPS (Meng et al., NeurIPS 2024): mask and weights of a matrix together, by alternating directions."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.channel_units import ChannelUnits, largest_weight
from statprune.core.conjugate_gradients import WORKING_COPIES, SecondMoments, fit_kept_weights, share_left
from statprune.core.finite import check_gram, dead_channels
from statprune.core.methods import Method
from statprune.core.patterns import Group, Pattern
from statprune.core.solution import Diagnostics, Solution
from statprune.core.statistics import InputStatistics, StatisticsKind

LEAST_DAMPING = 1e-6  # below it a dead channel's unit is lost in float32
CHECK_EVERY = 3  # rounds between two looks at the support
SETTLES_FROM = 30  # rounds after which a support that hardly moves is taken as it is
LEAST_RHO, LARGEST_RHO = 1e-6, 1e6
GROWTH = ((0.1, 1.3), (0.005, 1.2))  # factors of ρ where the support's change, as a share of what is kept, is above


class _Verdict(Enum):
    """What a look at the support leads to."""

    go_on = "go on"
    start_again = "start again"
    end = "end"


@dataclass
class _Schedule:
    """The penalty ρ: it grows until the support stands still.

    Attributes:
        rho: ρ.
        tolerance: of ``Alps``.
        has_begun: whether the support has moved by more than the least share that ``GROWTH`` names.
    """

    rho: float
    tolerance: float
    has_begun: bool = False

    def look(self, change: float, rounds: int) -> _Verdict:
        """Move ρ on.

        Args:
            change: entries that came into the support or left it since the last look, over those it has.
            rounds: so far.
        """
        factor = next((factor for least, factor in GROWTH if change > least), None)
        if factor is None and not self.has_begun:
            self.rho /= 5
            return _Verdict.start_again if self.rho >= LEAST_RHO else _Verdict.end
        if change == 0 or (rounds > SETTLES_FROM and change < self.tolerance):
            return _Verdict.end
        self.has_begun = True
        self.rho = min(self.rho * (factor or 1.1), LARGEST_RHO)
        return _Verdict.go_on


@dataclass(frozen=True)
class _Problem:
    """What matrices with one input share.

    Attributes:
        gram: damped, and with 1 on its diagonal, (in_features, in_features).
        units: by which inputs were divided to make it so.
        eigenvalues: of ``gram``, (in_features,).
        eigenvectors: its columns Q, (in_features, in_features).
    """

    gram: Tensor
    units: ChannelUnits
    eigenvalues: Tensor
    eigenvectors: Tensor

    def inverse(self, rho: float) -> Tensor:
        """(G + ρI)⁻¹."""
        return (self.eigenvectors / (self.eigenvalues + rho)) @ self.eigenvectors.T


@dataclass(frozen=True)
class _Found:
    """Where the search ended: D, its support, and numbers for the report."""

    weight: Tensor
    keep: Tensor
    diagnostics: Diagnostics


@dataclass(frozen=True)
class Alps(Method):
    """ALPS: support and weights are found together by the alternating direction method of multipliers.

    Meng et al., NeurIPS 2024, arXiv 2406.07831. G is damped, W̄ and Ḡ are the weight and G in units that give Ḡ a
    diagonal of ones, and Ḡ = QΛQᵀ is factorised once for all matrices with the input. From D = the k largest of W̄ and
    V = 0, a round is

        B = (W̄Ḡ − V + ρD) Q (Λ + ρI)⁻¹ Qᵀ;    D = the k largest of B + V/ρ, others 0;    V ← V + ρ (B − D).

    Every 3 rounds, the entries that came into D's support or left it are counted, as a share of k. ρ grows by 1.3 where
    the share is above 0.1, by 1.2 above 0.005, and else by 1.1; until the share has been above 0.005 once, ρ is divided
    by 5 instead, and the search starts again. It ends once the support stands still, and, as the authors' code does, at
    a share below 0.0003 after round 30. ``steps`` of conjugate gradients on the support, from D, are last
    (``conjugate_gradients``).

    The k largest are those of the pattern: of the whole matrix where the user does not say otherwise, as the authors
    have it; of each row, or of each group of N:M; a plugin's pattern selects by |B + V/ρ|.

    Deviations from the authors' code: D is what the last stage starts from, and not the k largest of B (they are the
    same at the end). The search starts again, too, while the support has not moved at all, where their code lowers ρ
    and goes on. It ends where not even ρ = 1e-6 moves the support (nothing is to be pruned, or all is alike). Kept
    weights of rows that lose nothing, and of channels that are zero in all inputs (they compete by the damping alone),
    are the dense ones, and not within rounding of them. Weights are in units of the largest while they are solved.
    Rounds before a new start count among ``rounds``, and after one the share counts from the first support (there: from
    the last). Their conjugate gradients may stop early, ours take all steps. ρ stays below 1e6, as there.

    (Λ + ρI)⁻¹ is multiplied out between Q and Qᵀ whenever ρ changes, so that a round is one product, W × G; that costs
    less than two a round unless inputs are more than three times as many as outputs. Each look at the support waits for
    a GPU.

    Attributes:
        damping: added to G's diagonal, as a share of its mean [fraction].
        rho: ρ at the start.
        rounds: at most [rounds].
        tolerance: after round 30, the search ends once the support changes by less than this share of its size; 0:
            only once it stops changing [fraction].
        steps: of conjugate gradients on the support [steps].
    """

    damping: float = 0.01
    rho: float = 0.1
    rounds: int = 300
    tolerance: float = 0.0003
    steps: int = 10

    needs: ClassVar[StatisticsKind] = StatisticsKind.GRAM
    group: ClassVar[Group] = Group.matrix

    def __post_init__(self) -> None:
        if not LEAST_DAMPING <= self.damping < math.inf:
            raise ValueError(f"method.damping={self.damping} is below {LEAST_DAMPING}; ALPS' authors use 0.01")
        if not LEAST_RHO <= self.rho <= LARGEST_RHO:
            raise ValueError(
                f"method.rho={self.rho} is outside [{LEAST_RHO}, {LARGEST_RHO:.0e}]; ALPS' authors start with 0.1"
            )
        if self.rounds < 1:
            raise ValueError(f"method.rounds={self.rounds} is too small; give at least 1 (ALPS' authors allow 300)")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"method.tolerance={self.tolerance} is outside [0, 1); ALPS' authors use 0.0003")
        if self.steps < 0:
            raise ValueError(f"method.steps={self.steps} is negative; give 0 or more (ALPS' authors take 10)")

    @property
    def working_copies(self) -> int:
        """Those of the last stage."""
        return WORKING_COPIES

    @property
    def gram_copies(self) -> int:
        """In float64 the normalised matrix, its eigenvectors and what finding them takes; what is kept, once more."""
        return 12

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Prune one weight of shape (out_features, in_features).

        Diagnostics: ``rounds`` taken, ``rho`` at the end, ``support_change`` (as a share of the support, at the last
        look), ``fit_residual`` (the gradient's norm after the last stage over that before) and ``dead_columns``.

        Raises:
            ValueError: the Gram matrix is not finite, or inputs are so small that their squares vanish.
        """
        key = ("alps", weight.dtype, self.damping)
        problem: _Problem = statistics.once(key, lambda: _normalised(statistics, self.damping, weight.dtype))
        unit = largest_weight(weight)
        dense = problem.units.of(weight, unit)
        found = self._search(dense, problem, pattern)
        moments = SecondMoments(problem.gram.diagonal(), problem.gram)
        fitted, left = fit_kept_weights(dense, found.weight, found.keep, moments, dense.new_zeros(()), self.steps)
        result = problem.units.restored(weight, unit, fitted, found.keep)
        numbers: Diagnostics = {"fit_residual": share_left(left), "dead_columns": problem.units.is_dead.sum()}
        return Solution(result, found.keep, found.diagnostics | numbers)

    def _search(self, dense: Tensor, problem: _Problem, pattern: Pattern) -> _Found:
        """Take the rounds.

        Args:
            dense: W̄, (out_features, in_features).
            problem: Ḡ.
            pattern: selects the support.
        """
        target = dense @ problem.gram
        start = pattern.select(dense.abs())
        kept = max(int(start.sum()), 1)
        schedule = _Schedule(self.rho, self.tolerance)
        inverse = problem.inverse(schedule.rho)
        weight, dual, keep, seen = dense * start, torch.zeros_like(dense), start, start
        change, rounds = 0.0, 0
        for rounds in range(1, self.rounds + 1):
            rho = schedule.rho
            best = target.add(weight, alpha=rho).sub_(dual) @ inverse
            sought = best.add_(dual, alpha=1 / rho)
            keep = pattern.select(sought.abs())
            weight = sought * keep
            dual = (sought - weight).mul_(rho)  # V + ρ (B − D), since sought is B + V/ρ
            if rounds % CHECK_EVERY:
                continue
            change, seen = int((keep != seen).sum()) / kept, keep
            verdict = schedule.look(change, rounds)
            if verdict is _Verdict.end:
                break
            if verdict is _Verdict.start_again:
                weight, dual, keep, seen = dense * start, torch.zeros_like(dense), start, start
            inverse = problem.inverse(schedule.rho)
        numbers: Diagnostics = {"rounds": float(rounds), "rho": schedule.rho, "support_change": change}
        return _Found(weight, keep, numbers)


def _normalised(statistics: InputStatistics, damping: float, dtype: torch.dtype) -> _Problem:
    """The damped Gram matrix in units that give it a diagonal of ones, and its eigenvectors, computed in float64."""
    check_gram(statistics.gram)
    mean = statistics.gram.diagonal().mean()
    gram = statistics.gram / torch.where(mean > 0, mean, 1.0)
    is_dead = dead_channels(gram, statistics, "method")
    gram.diagonal().add_(damping)
    lengths = gram.diagonal().sqrt()
    gram.div_(lengths).div_(lengths[:, None])
    eigenvalues, eigenvectors = torch.linalg.eigh(gram)
    return _Problem(
        gram=gram.to(dtype),
        units=ChannelUnits(lengths.to(dtype), is_dead),
        eigenvalues=eigenvalues.clamp_min_(0).to(dtype),
        eigenvectors=eigenvectors.to(dtype),
    )
