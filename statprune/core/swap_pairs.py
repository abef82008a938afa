"""The best swap among all pairs of a kept and a pruned weight of a row, without looking at each of them.

A pair changes the loss by own_u + own_v + 2 δ_u δ_v G_uv, and |G_uv| = ρ_uv √(G_uu G_vv) with the channels' correlation
ρ_uv ≤ 1. The few pairs of channels with the largest ρ are looked at in every row. With τ_u, the largest ρ in all other
pairs of u, none of those changes the loss by less than own_u + own_v − 2 τ_u b_u b_v, b_j = |δ_j| √G_jj, so that only
weights with a low enough bound are left to be paired.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.core.swap_rows import SwapRows, pair_products

CLOSE_PAIRS = 4  # for each channel, at most, on average
BINS = 100  # of correlations, to find τ
ROUNDING = 1.001  # the bound's, so that no pair is lost to it
ENTRIES = 2**20  # of intermediate values
ROWS_TOGETHER = 64  # as many have as many weights left to be paired as the one with most
CHORDS = 8  # of the bound, each as long as all before it: most weights' reach is far below the largest


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of correlated channels.

    Attributes:
        first: channel of each pair, (pairs,).
        second: the other one.
        products: 2 G of the pair.
        threshold: τ of every channel, the largest correlation in all its other pairs, (in_features,).
        root: √G_jj, (in_features,).
    """

    first: Tensor
    second: Tensor
    products: Tensor
    threshold: Tensor
    root: Tensor


def close_pairs(gram: Tensor) -> ClosePairs:
    """The pairs of channels whose correlation is above a threshold that leaves few of them.

    Args:
        gram: G, (in_features, in_features).
    """
    root = gram.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(root > 0, 1 / root, 0)
    correlation = (gram * inverse[:, None]).mul_(inverse).abs_().clamp_max_(1).triu_(1)
    counts = torch.histc(correlation.float(), BINS, 0, 1).flip(0).cumsum(0)
    bins = int((counts <= CLOSE_PAIRS * len(gram)).sum())
    is_close = correlation > 1 - bins / BINS
    first, second = is_close.nonzero().unbind(1)
    others = correlation.masked_fill_(is_close, 0)
    threshold = torch.maximum(others.amax(0), others.amax(1))
    return ClosePairs(first, second, 2 * gram[first, second], threshold, root)


def best_swaps(
    rows: SwapRows, own: Tensor, gram: Tensor, close: ClosePairs, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best swap of each row, or any other where none gains as much as it has to, and weights for further swaps.

    Args:
        rows: are not changed.
        own: their ``own_changes``.
        gram: G.
        close: its close pairs.
        count: of weights, kept and pruned ones, whose pairs are among the best.

    Returns:
        The change of the loss, (rows,), infinite where no pair may gain; and the kept and the pruned channels, (rows,
        count), of which the first two are the best swap. The others are these two again where that is of a close pair.
    """
    change, channels = _best_close_swaps(rows, own, close)
    other_change, kept, pruned = _best_other_swaps(rows, own, gram, close, count)
    is_close = (change <= other_change)[:, None]
    kept, pruned = torch.where(is_close, channels[:, :1], kept), torch.where(is_close, channels[:, 1:], pruned)
    return torch.minimum(change, other_change), kept, pruned


def _best_close_swaps(rows: SwapRows, own: Tensor, close: ClosePairs) -> tuple[Tensor, Tensor]:
    own, change, keep = own.T.contiguous(), rows.change.T.contiguous(), rows.keep.T.contiguous()
    best = own.new_full((len(rows),), torch.inf)
    channels = torch.zeros(len(rows), 2, dtype=torch.int64, device=own.device)
    step = max(1, ENTRIES // len(rows))
    for start in range(0, len(close.first), step):
        first, second = close.first[start : start + step], close.second[start : start + step]
        values = change.index_select(0, first).mul_(close.products[start : start + step, None])
        values.mul_(change.index_select(0, second))
        values.add_(own.index_select(0, first)).add_(own.index_select(0, second))
        lowest, pair = values.masked_fill_(keep[first] == keep[second], torch.inf).min(0)
        pairs = torch.stack([first[pair], second[pair]], 1)
        is_first_kept = rows.keep.gather(1, pairs[:, :1])
        pairs = torch.where(is_first_kept, pairs, pairs.flip(1))
        channels = torch.where((lowest < best)[:, None], pairs, channels)
        best = torch.minimum(best, lowest)
    return best, channels


def _best_other_swaps(
    rows: SwapRows, own: Tensor, gram: Tensor, close: ClosePairs, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    size = rows.change.abs() * close.root
    kept, pruned = _left_to_pair(rows, own, size, 2 * ROUNDING * close.threshold * size)
    best = own.new_full((len(rows),), torch.inf)
    first, second = torch.zeros(2, len(rows), count, dtype=torch.int64, device=own.device)
    kept_count, pruned_count = kept.isfinite().sum(1), pruned.isfinite().sum(1)
    pairs = kept_count * pruned_count
    order = pairs.argsort()[int((pairs == 0).sum()) :]
    for together in order.split(ROWS_TOGETHER) if len(order) else ():
        left = int(kept_count[together].max()), int(pruned_count[together].max())
        for part in together.split(max(1, ENTRIES // (left[0] * left[1]))):
            found = _best_of_lowest(rows.change[part], kept[part], pruned[part], left, gram, count)
            best[part], first[part], second[part] = found
    return best, first, second


def _best_of_lowest(
    change: Tensor, kept: Tensor, pruned: Tensor, left: tuple[int, int], gram: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best change, and the weights with the best pairs, of as many with the lowest own changes as are left."""
    first, second = kept.topk(left[0], 1, largest=False), pruned.topk(left[1], 1, largest=False)
    pairs = pair_products(gram, first.indices, second.indices)
    pairs.mul_(2 * change.gather(1, first.indices)[:, :, None]).mul_(change.gather(1, second.indices)[:, None, :])
    pairs.add_(first.values[:, :, None]).add_(second.values[:, None, :])
    best_kept = pairs.amin(2).topk(min(count, left[0]), 1, largest=False)
    best_pruned = pairs.amin(1).topk(min(count, left[1]), 1, largest=False)
    u, v = first.indices.gather(1, best_kept.indices), second.indices.gather(1, best_pruned.indices)
    return best_kept.values[:, 0], _filled(u, count), _filled(v, count)


def _filled(channels: Tensor, count: int) -> Tensor:
    """As many channels as asked for: the first one again where there are fewer."""
    return torch.cat([channels, channels[:, :1].expand(-1, count - channels.shape[1])], 1)


def _left_to_pair(rows: SwapRows, own: Tensor, size: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Own changes of kept and of pruned weights whose bound leaves a gain possible; infinity elsewhere."""
    kept = _with_possible_gain(rows.kept(own), rows.pruned(own), size, reach, rows.least_gain)
    return kept, _with_possible_gain(rows.pruned(own), kept, size, reach, rows.least_gain)


def _with_possible_gain(own: Tensor, partners: Tensor, size: Tensor, reach: Tensor, least_gain: Tensor) -> Tensor:
    """Own changes of weights that may gain with the best partner for their reach r; infinity elsewhere.

    That partner is bounded by f(r) = min over all partners of own − r · size, which is concave in r: it lies above its
    chords between a few values of r, and these are the lowest of their lines.
    """
    most = reach.amax(1, keepdim=True)
    bound = torch.full_like(own, torch.inf)
    start, lowest = torch.zeros_like(most), partners.amin(1, keepdim=True)
    for number in reversed(range(CHORDS)):
        end = most / 2**number
        lowest_at_end = torch.addcmul(partners, size, end, value=-1).amin(1, keepdim=True)
        slope = ((lowest_at_end - lowest) / (end - start)).nan_to_num_(0)
        torch.minimum(bound, torch.addcmul(lowest - start * slope, reach, slope), out=bound)
        start, lowest = end, lowest_at_end
    return own.masked_fill(own + bound >= -least_gain[:, None], torch.inf)
