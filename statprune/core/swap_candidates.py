"""Swaps among the most promising weights of every row: the fast part of a search that all pairs complete."""

import torch
from torch import Tensor

from statprune.core.swap_pairs import ClosePairs, best_swaps
from statprune.core.swap_rows import SwapRows, pair_products


def swap_candidates(rows: SwapRows, gram: Tensor, span: int, count: int, max_swaps: int) -> Tensor:
    """Make the steepest swaps among candidates, one after the other, until none of their pairs gains.

    Args:
        rows: are changed in place.
        gram: G.
        span: consecutive inputs that swaps stay within; the whole row, or a group of an N:M pattern.
        count: of candidates.
        max_swaps: no row makes more.

    Returns:
        Whether a row swapped anything, (rows,), bool.
    """
    own = rows.own_changes(gram)
    if span == own.shape[1]:
        kept, first = _lowest(rows.kept(own), count)
        pruned, second = _lowest(rows.pruned(own), count)
        is_partner = None
    else:
        first, second = _best_of_groups(rows, own, gram, span, count)
        kept, pruned = rows.kept(own).gather(1, first), rows.pruned(own).gather(1, second)
        is_partner = torch.eye(first.shape[1], dtype=torch.bool, device=own.device)
    return _swap_among((first, second), (kept, pruned), is_partner, rows, gram, max_swaps)


def swap_around_best(rows: SwapRows, gram: Tensor, close: ClosePairs, count: int, max_swaps: int) -> Tensor:
    """Make the best swap of all pairs in every row, if it gains, and further ones of weights with the best pairs.

    The arguments and what is returned are those of ``swap_candidates``.
    """
    own = rows.own_changes(gram)
    _, first, second = best_swaps(rows, own, gram, close, min(count, own.shape[1]))
    kept, pruned = rows.kept(own).gather(1, first), rows.pruned(own).gather(1, second)
    for values, channels in ((kept, first), (pruned, second)):
        values[:, 1:].masked_fill_(channels[:, 1:] == channels[:, :1], torch.inf)
    return _swap_among((first, second), (kept, pruned), None, rows, gram, max_swaps)


def _swap_among(
    channels: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    is_partner: Tensor | None,
    rows: SwapRows,
    gram: Tensor,
    max_swaps: int,
) -> Tensor:
    """Make the steepest swaps among kept and pruned channels with such own changes; whether a row made any."""
    both = torch.cat(channels, 1)
    change = rows.change.gather(1, both)
    products = pair_products(gram, both, both).mul_(change[:, :, None]).mul_(2 * change[:, None, :])
    budget = max_swaps - rows.made
    is_exchanged = _steepest_swaps(torch.cat(own, 1), products, is_partner, rows.least_gain, budget)
    rows.exchange(both, is_exchanged, gram)
    return is_exchanged.any(1)


def _steepest_swaps(
    own: Tensor, products: Tensor, is_partner: Tensor | None, least_gain: Tensor, budget: Tensor
) -> Tensor:
    """Which candidates are exchanged, (rows, 2 · count), bool: each swap is the best pair after the ones before it.

    Args:
        own: loss changes of kept candidates, then of pruned ones, (rows, 2 · count); it is changed.
        products: 2 δ_a δ_b G_ab of all candidates, (rows, 2 · count, 2 · count): exchanging a changes the own loss
            change of b by that.
        is_partner: which kept and pruned candidates may swap, (count, count), bool; None: all.
        least_gain: what a swap has to gain, (rows,).
        budget: how many swaps each row may make, (rows,).
    """
    count = own.shape[1] // 2
    between = products[:, :count, count:]
    if is_partner is not None:
        between = between.masked_fill(~is_partner, torch.inf)
    places = torch.arange(2 * count, device=own.device)
    both = torch.cartesian_prod(places[:count], places[count:])  # candidates of each pair
    start = 2 * count * torch.arange(len(own), device=own.device)[:, None]
    least_change = -least_gain
    times_exchanged = torch.zeros_like(own, dtype=torch.uint8)
    goes_on = budget > 0  # own changes of rows that do not are no longer true
    for made in range(count):
        pairs = between + own[:, :count, None]
        pairs += own[:, None, count:]
        change, pair = pairs.flatten(1).min(1)
        goes_on = goes_on & (change < least_change) & (budget > made)
        if not goes_on.any():
            break
        chosen = both.index_select(0, pair)
        own += products.view(-1, 2 * count).index_select(0, (start + chosen).flatten()).view(-1, 2, 2 * count).sum(1)
        own.scatter_(1, chosen, torch.inf)
        times_exchanged.scatter_add_(1, chosen, goes_on.to(torch.uint8)[:, None].expand(-1, 2))
    return times_exchanged.bool()


def _lowest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    lowest = values.topk(min(count, values.shape[1]), 1, largest=False)
    return lowest.values, lowest.indices


def _best_of_groups(rows: SwapRows, own: Tensor, gram: Tensor, span: int, count: int) -> tuple[Tensor, Tensor]:
    """The best pair of each group, in those groups whose pairs are best: kept and pruned channels, (rows, count)."""
    in_features = own.shape[1]
    shape = (len(own), in_features // span, span)
    blocks = gram.view(shape[1], span, shape[1], span).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    change = rows.change.view(shape)
    pairs = change[:, :, :, None] * (2 * change)[:, :, None, :] * blocks
    pairs += rows.kept(own).view(shape)[:, :, :, None]
    pairs += rows.pruned(own).view(shape)[:, :, None, :]
    best, pair = pairs.flatten(2).min(2)
    groups = _lowest(best, count)[1]
    pair = pair.gather(1, groups)
    return groups * span + pair // span, groups * span + pair % span
