"""Exact swaps: a better mask for the same counts, by the Gram matrix of the inputs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from statprune.core.finite import check_gram
from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement, no_exchange
from statprune.core.row_chunks import row_chunks
from statprune.core.solution import Diagnostics, Solution
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.core.swap_candidates import swap_around_best, swap_candidates
from statprune.core.swap_pairs import ClosePairs, close_pairs
from statprune.core.swap_rows import SwapRows

SHARE = 8  # rows whose candidates gain nothing are set aside once they are one in so many


@dataclass(frozen=True)
class Search:
    """What the search in every row needs.

    Attributes:
        exact: G over its mean diagonal, float64.
        gram: the same in the weights' precision.
        close: its close pairs; None where swaps stay in the groups of an N:M pattern.
        span: consecutive inputs that swaps stay within.
    """

    exact: Tensor
    gram: Tensor
    close: ClosePairs | None
    span: int


@dataclass(frozen=True)
class Swaps(Refinement):
    """Exact swaps of a kept and a pruned weight of a row (SparseSwaps, arXiv 2512.10922); they follow any method.

    A row w, pruned to ŵ, has the error e = w − ŵ and the loss L = eᵀGe, with G = XᵀX of the inputs, not centred.
    Pruning a kept weight u and restoring a pruned one v to its dense value changes e by δ_u = +ŵ_u and δ_v = −w_v, and

        ΔL = 2 (c_u δ_u + c_v δ_v) + δ_u² G_uu + δ_v² G_vv + 2 δ_u δ_v G_uv,   c = G e.

    Where the method left the kept weights as they were, ŵ_u = w_u and e is what was pruned, p: then this is

        ΔL = 2 w_u c_u + w_u² G_uu − 2 w_v c_v + w_v² G_vv − 2 w_u w_v G_uv,   c = G p.

    After SparseGPT kept weights keep their updates, also where they are pruned and come back. All of ΔL but its last
    term belongs to u or to v alone: the best ``candidates`` of both are paired, their best pair is swapped, and the
    next one after it, until none of their pairs gains; then c, and the candidates with it, are computed anew. Where
    the candidates have no pair that gains, all pairs of the row are searched, and the weights with the best of these
    are the next candidates. Where no pair gains, the row stops: then none of its pairs takes away ``min_gain`` of the
    loss that it began with, or more. With N:M all pairs of all groups are looked at, and u and v are of one group.

    Every row keeps its count, and so does ``group=matrix``; the counts of SparseGPT's column blocks change. A pattern
    of a plugin has to say what swaps stay within (``Pattern.exchange_span``), or it is refused.

    c and ΔL have the weights' precision, c starts from float64. L is computed in float64 before and after, and a row
    whose loss rounding has raised is put back. In float32 gains below about 1e-6 of the row's loss are rounding.

    Deviations: a swap has to take away ``min_gain`` of what the row lost at the start (0 there, and no floor for
    rounding); the paper's code was not public; its swaps take the best pair of all each time. Ours takes the best of
    few, of all only where these gain nothing, and so may come to another mask that no swap betters.

    Where no token was seen (G = I) swaps prune the smallest weights; a row without loss, kept or pruned weights stays.

    Attributes:
        max_swaps: no row swaps more pairs [swaps].
        candidates: how many kept and how many pruned weights of a row, or groups of N:M, are looked at together.
        min_gain: least share of the row's loss at the start that a swap must take away [fraction].
    """

    max_swaps: int = 100
    candidates: int = 8
    min_gain: float = 1e-6

    needs: ClassVar[StatisticsKind] = StatisticsKind.GRAM

    def __post_init__(self) -> None:
        if self.max_swaps < 1:
            raise ValueError(f"refinement.max_swaps={self.max_swaps} is too small; give at least 1, or refinement=none")
        if self.candidates < 1:
            raise ValueError(f"refinement.candidates={self.candidates} is too small; give at least 1")
        if not 0 <= self.min_gain < 1:
            raise ValueError(f"refinement.min_gain={self.min_gain} is outside [0, 1); give a small share such as 1e-6")

    def problem(self, pattern: Pattern) -> str | None:
        """A sentence where the pattern does not say what swaps have to stay within."""
        return no_exchange("swaps", pattern)

    def refine(self, dense: Tensor, solution: Solution, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """A solution that keeps as many weights of every row, and of every group of N:M, with no higher loss.

        Diagnostics: ``loss_before`` and ``loss_after``, Σ eᵀGe over the rows, relative to the dense outputs' energy
        Σ wᵀGw; ``swaps`` that all rows made together; how many rows stopped by themselves (``rows_stopped``), the
        others having made ``max_swaps``; and how many were put back (``rows_put_back``).

        Args:
            dense: original weight, (out_features, in_features).
            solution: the method's.
            statistics: of the matrix's input, with the Gram matrix.
            pattern: of the mask.

        Raises:
            ValueError: the Gram matrix is not finite, or the pattern says nothing of exchanges.
        """
        if problem := self.problem(pattern):
            raise ValueError(problem)
        search = _search(statistics, pattern, dense)
        size = dense.abs().max().clamp_min(torch.finfo(dense.dtype).tiny)
        parts = []
        for rows in row_chunks(dense, 4 * self.candidates**2):
            parts.append(self._refined(dense[rows] / size, solution.weight[rows] / size, solution.keep[rows], search))
        keep, made, stopped, before, after, energy = (torch.cat(column) for column in zip(*parts, strict=True))
        is_worse = after > before
        keep = torch.where(is_worse[:, None], solution.keep, keep)
        diagnostics: Diagnostics = {
            "swaps": torch.where(is_worse, 0, made).sum(),
            "loss_before": before.sum() / energy.sum(),
            "loss_after": torch.minimum(before, after).sum() / energy.sum(),
            "rows_stopped": (stopped & ~is_worse).sum(),
            "rows_put_back": is_worse.sum(),
        }
        return Solution(_pruned(dense, solution.weight, solution.keep, keep), keep, diagnostics)

    def _refined(self, dense: Tensor, pruned: Tensor, keep: Tensor, search: Search) -> tuple[Tensor, ...]:
        """Mask, number of swaps, whether it stopped by itself, loss before and after, dense energy; of every row."""
        slope, before = _slopes(dense - pruned, search.exact)
        value = torch.where(keep, pruned, dense)
        rows = SwapRows(
            number=torch.arange(len(dense), device=dense.device),
            side=torch.where(keep, -torch.inf, torch.inf).to(dense.dtype),
            change=torch.where(keep, value, -value),
            slope=(2 * slope).to(dense.dtype),
            least_gain=(self.min_gain * before).to(dense.dtype),
            made=torch.zeros(len(dense), dtype=torch.int64, device=dense.device),
        )
        now, made, stopped = self._searched(rows, search)
        _, after = _slopes(dense - _pruned(dense, pruned, keep, now), search.exact)
        energy = ((dense @ search.gram) * dense).sum(1)
        return now, made, stopped, before, after, energy

    def _searched(self, rows: SwapRows, search: Search) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, number of swaps, and whether it stopped by itself, of every row."""
        keep, made = rows.keep, rows.made.clone()
        stopped = torch.zeros_like(made, dtype=torch.bool)
        stuck = rows.take(rows.number[:0])
        while len(rows):
            has_swapped = swap_candidates(rows, search.gram, search.span, self.candidates, self.max_swaps)
            goes_on = has_swapped & (rows.made < self.max_swaps)
            if int(goes_on.sum()) * SHARE > len(rows) * (SHARE - 1):
                continue
            waits = rows.where(~goes_on)
            keep[waits.number], made[waits.number] = waits.keep, waits.made
            stuck = SwapRows.joined(stuck, waits.where(waits.made < self.max_swaps))
            rows = rows.where(goes_on)
            if len(stuck) and len(rows) * SHARE <= len(stuck):  # a search of few rows costs about as much
                has_swapped = self._all_pairs_searched(stuck, search)
                keep[stuck.number], made[stuck.number] = stuck.keep, stuck.made
                stopped[stuck.number] = ~has_swapped
                rows = SwapRows.joined(rows, stuck.where(has_swapped & (stuck.made < self.max_swaps)))
                stuck = stuck.take(stuck.number[:0])
        return keep, made, stopped

    def _all_pairs_searched(self, rows: SwapRows, search: Search) -> Tensor:
        """Whether rows swapped anything, (rows,), bool, of all their pairs."""
        if search.close is None:  # the candidates are the best of all pairs
            return torch.zeros_like(rows.made, dtype=torch.bool)
        return swap_around_best(rows, search.gram, search.close, self.candidates, self.max_swaps)


def _search(statistics: InputStatistics, pattern: Pattern, dense: Tensor) -> Search:
    """What matrices with the same input share, and the pattern's span."""
    exact = statistics.once("gram over its mean diagonal", lambda: _scaled_gram(statistics))
    gram = statistics.once(("gram over its mean diagonal", dense.dtype), lambda: exact.to(dense.dtype))
    span = pattern.exchange_span(dense.shape[1])
    assert span is not None  # such a pattern was refused
    if span < dense.shape[1]:
        return Search(exact, gram, None, span)
    return Search(exact, gram, statistics.once(("close pairs", dense.dtype), lambda: close_pairs(gram)), span)


def _scaled_gram(statistics: InputStatistics) -> Tensor:
    gram = statistics.gram
    if not gram.is_cuda:  # looking would wait for it
        check_gram(gram)
    return gram / gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)


def _slopes(error: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Ge and eᵀGe of every row of errors, (rows, in_features) and (rows,), float64."""
    error = error.to(gram.dtype)
    slope = error @ gram
    return slope, (slope * error).sum(1)


def _pruned(dense: Tensor, weight: Tensor, was_kept: Tensor, keep: Tensor) -> Tensor:
    """The pruned weight where it was kept before, the dense one where it is restored, zero where it is pruned."""
    return torch.where(was_kept, weight, dense) * keep.to(dense.dtype)
