"""DSnoT: prune and grow weights until the expected error of every output is small (Zhang et al., ICLR 2024)."""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement, no_exchange
from statprune.core.solution import Solution
from statprune.core.statistics import InputStatistics, StatisticsKind


@dataclass(frozen=True)
class DSnoT(Refinement):
    """DSnoT (arXiv 2310.08915): swaps that bring every output's expected error to zero; they follow any method.

    The expected error of output i is r_i = Σ_j (W_ij − Ŵ_ij) s_j, with s_j the mean input; where the method left the
    kept weights as they were, this is Σ_{j pruned} W_ij s_j. In every cycle a row with r > 0 restores the pruned
    weight with the largest W_ij s_j / Var(x_j), and prunes, among kept weights with W_ij s_j < 0, the one with the
    lowest Wanda score |W_ij| ‖x_j‖; a row with r < 0 does the mirror image. With N:M the weight that is pruned is the
    one with the lowest score in the restored weight's group. A row stops once |r| ≤ ``threshold``, after
    ``max_cycles``, where it has no such weights, or where |r| would not fall: then that swap is not made. A weight is
    restored once at most.

    Deviations: the authors' s_j is the mean over samples of each one's input sum, ours the mean over tokens times
    ``tokens``, so that the threshold means the same for every length of window; a swap that raises |r| is never made;
    their code leaves MLPs out by default, ours refines every matrix that ``exclude`` does not name.
    Var(x_j) is over all tokens (theirs: the mean of each sample's); at N:M the score is Wanda's after every method
    (theirs: the first mask's), and a row goes on where r changes sign and |r| falls (theirs stops); a weight that came
    back may be pruned again. A channel without variance is restored last. Weights that a method changed count with
    their changed values while they are kept.

    Attributes:
        max_cycles: no row swaps more pairs [swaps].
        threshold: a row whose expected error, summed over ``tokens`` tokens, is no larger stops.
        tokens: of a sample, over which expected errors are summed [tokens].
        exclude: regular expressions; a matrix whose full name one of them is found in keeps the method's mask. [mlp]
            does for most models what the authors' code does.
    """

    max_cycles: int = 50
    threshold: float = 0.1
    tokens: int = 2048
    exclude: tuple[str, ...] = ()

    needs: ClassVar[StatisticsKind] = StatisticsKind.MOMENTS

    def __post_init__(self) -> None:
        if self.max_cycles < 1:
            raise ValueError(f"refinement.max_cycles={self.max_cycles} is too small; give at least 1")
        if not self.threshold >= 0:
            raise ValueError(f"refinement.threshold={self.threshold} is negative; give a small number such as 0.1")
        if self.tokens < 1:
            raise ValueError(f"refinement.tokens={self.tokens} is too small; give at least 1")
        if isinstance(self.exclude, str):
            raise ValueError(f"refinement.exclude={self.exclude} is no list; give [{self.exclude}]")
        for expression in self.exclude:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"refinement.exclude: {expression} is no regular expression: {error}") from None

    def problem(self, pattern: Pattern) -> str | None:
        """A sentence where the pattern does not say what exchanges have to stay within."""
        return no_exchange("dsnot", pattern)

    def refine(self, dense: Tensor, solution: Solution, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """A solution that keeps as many weights of every row, and of every group of N:M.

        Diagnostics: ``swaps`` that all rows made together; ``error_before`` and ``error_after``, the mean |r| of the
        rows; ``rows_stopped``, how many rows stopped before ``max_cycles``.

        Args:
            dense: original weight, (out_features, in_features).
            solution: the method's.
            statistics: of the matrix's input.
            pattern: of the mask.

        Raises:
            ValueError: the pattern says nothing of exchanges.
        """
        span = pattern.exchange_span(dense.shape[1])
        if span is None:
            raise ValueError(self.problem(pattern))
        value = torch.where(solution.keep, solution.weight, dense)
        sums = (statistics.mean * self.tokens).to(dense.dtype)
        spread = statistics.variance.to(dense.dtype)
        share = value * sums  # of r, where the weight is pruned; what restoring it takes away
        gain = torch.where(spread > 0, share / spread, 0)
        score = value.abs() * statistics.norm.to(dense.dtype)
        keep, error = solution.keep.clone(), ((dense - solution.weight) * sums).sum(1)
        before, is_active, may_return = error.abs(), torch.ones_like(error, dtype=torch.bool), ~keep
        swaps = torch.zeros((), dtype=torch.int64, device=dense.device)
        rows = torch.arange(len(dense), device=dense.device)
        groups = torch.arange(dense.shape[1], device=dense.device) // span
        for _ in range(self.max_cycles):
            sign = error.sign()[:, None]
            is_active &= error.abs() > self.threshold
            restored = (gain * sign).masked_fill(keep | ~may_return | (share * sign <= 0), -torch.inf)
            best, v = restored.max(1)
            if span == dense.shape[1]:
                is_candidate = keep & (share * sign < 0)
            else:
                is_candidate = keep & (groups == (v // span)[:, None])
            lowest, u = score.masked_fill(~is_candidate, torch.inf).min(1)
            after = error + share[rows, u] - share[rows, v]
            is_active &= best.isfinite() & lowest.isfinite() & (after.abs() < error.abs())
            _set_where(is_active, keep, u, False)
            _set_where(is_active, keep, v, True)
            _set_where(is_active, may_return, v, False)
            error = torch.where(is_active, after, error)
            swaps += is_active.sum()
        stopped = (~is_active | (error.abs() <= self.threshold)).sum()
        numbers = {"swaps": swaps, "error_before": before.mean(), "error_after": error.abs().mean()}
        return Solution(value * keep, keep, {**numbers, "rows_stopped": stopped})


def _set_where(is_active: Tensor, mask: Tensor, column: Tensor, value: bool) -> None:
    """Set one entry of each active row, in place; a GPU is not waited for, as it is where rows are selected.

    Args:
        is_active: of the rows, bool, (rows,).
        mask: bool, (rows, columns).
        column: of each row's entry, (rows,).
        value: what it becomes.
    """
    at = column[:, None]
    mask.scatter_(1, at, mask.gather(1, at).masked_fill(is_active[:, None], value))
