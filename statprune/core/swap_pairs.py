"""The best swap among all pairs of a kept and a pruned weight of a row, without looking at each of them.

A pair changes the loss by own_u + own_v + 2 δ_u δ_v G_uv, and |G_uv| = ρ_uv √(G_uu G_vv) with the channels' correlation
ρ_uv ≤ 1. The few pairs of channels with ρ > τ are looked at in every row. No other pair changes the loss by less than
own_u + own_v − 2 τ b_u b_v, b_j = |δ_j| √G_jj, so that only weights with a low enough bound are left to be paired.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.core.swap_rows import SwapRows

CLOSE_PAIRS = 8  # for each channel, at most, on average
BINS = 100  # of correlations, to find τ
ROUNDING = 1.001  # the bound's, so that no pair is lost to it
ENTRIES = 2**20  # of intermediate values
ROWS_TOGETHER = 64  # as many have as many weights left to be paired as the one with most
SIZE_CLASSES = (
    1,
    16,
    16,
)  # of partners, whose lowest own change and largest size bound what they gain; in three passes


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of correlated channels.

    Attributes:
        first: channel of each pair, (pairs,).
        second: the other one.
        products: 2 G of the pair.
        threshold: τ, the largest correlation of all other pairs.
        root: √G_jj, (in_features,).
    """

    first: Tensor
    second: Tensor
    products: Tensor
    threshold: float
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
    threshold = 1 - bins / BINS
    first, second = (correlation > threshold).nonzero().unbind(1)
    return ClosePairs(first, second, 2 * gram[first, second], threshold, root)


def best_swaps(rows: SwapRows, own: Tensor, gram: Tensor, close: ClosePairs) -> tuple[Tensor, Tensor]:
    """The best swap of each row, or any other where none gains as much as it has to.

    Args:
        rows: are not changed.
        own: their ``own_changes``.
        gram: G.
        close: its close pairs.

    Returns:
        The change of the loss, (rows,), infinite where no pair may gain; and the channels (rows, 2): kept, pruned.
    """
    change, channels = _best_close_swaps(rows, own, close)
    other_change, other_channels = _best_other_swaps(rows, own, gram, close)
    is_other = other_change < change
    return torch.where(is_other, other_change, change), torch.where(is_other[:, None], other_channels, channels)


def _best_close_swaps(rows: SwapRows, own: Tensor, close: ClosePairs) -> tuple[Tensor, Tensor]:
    own, change, keep = own.T.contiguous(), rows.change.T.contiguous(), rows.keep.T.contiguous()
    best = own.new_full((len(rows),), torch.inf)
    channels = torch.zeros(len(rows), 2, dtype=torch.int64, device=own.device)
    step = max(1, ENTRIES // len(rows))
    for start in range(0, len(close.first), step):
        first, second = close.first[start : start + step], close.second[start : start + step]
        values = (change[first] * close.products[start : start + step, None]).mul_(change[second])
        values += own[first]
        values += own[second]
        lowest, pair = values.masked_fill_(keep[first] == keep[second], torch.inf).min(0)
        pairs = torch.stack([first[pair], second[pair]], 1)
        is_first_kept = rows.keep.gather(1, pairs[:, :1])
        pairs = torch.where(is_first_kept, pairs, pairs.flip(1))
        channels = torch.where((lowest < best)[:, None], pairs, channels)
        best = torch.minimum(best, lowest)
    return best, channels


def _best_other_swaps(rows: SwapRows, own: Tensor, gram: Tensor, close: ClosePairs) -> tuple[Tensor, Tensor]:
    size = rows.change.abs() * close.root
    reach = 2 * ROUNDING * close.threshold * size
    kept, pruned = _left_to_pair(rows, own, size, reach)
    best = own.new_full((len(rows),), torch.inf)
    channels = torch.zeros(len(rows), 2, dtype=torch.int64, device=own.device)
    kept_count, pruned_count = kept.isfinite().sum(1), pruned.isfinite().sum(1)
    pairs = kept_count * pruned_count
    order = pairs.argsort()[int((pairs == 0).sum()) :]
    for begin in range(0, len(order), ROWS_TOGETHER):
        together = order[begin : begin + ROWS_TOGETHER]
        first = kept[together].topk(int(kept_count[together].max()), 1, largest=False)
        second = pruned[together].topk(int(pruned_count[together].max()), 1, largest=False)
        limit = -rows.least_gain[together]
        first_reach, second_size = reach[together].gather(1, first.indices), size[together].gather(1, second.indices)
        step = max(1, ENTRIES // (first.indices.shape[1] * second.indices.shape[1]))
        for start in range(0, len(together), step):
            part = slice(start, start + step)
            bound = first_reach[part, :, None] * -second_size[part, None, :]
            bound += first.values[part, :, None]
            bound += second.values[part, None, :]
            row, i, j = (bound < limit[part, None, None]).nonzero().unbind(1)
            u, v = first.indices[part][row, i], second.indices[part][row, j]
            row = together[part][row]
            change = own[row, u] + own[row, v] + 2 * rows.change[row, u] * rows.change[row, v] * gram[u, v]
            _keep_lowest(best, channels, row, change, torch.stack([u, v], 1))
    return best, channels


def _keep_lowest(best: Tensor, channels: Tensor, row: Tensor, change: Tensor, pairs: Tensor) -> None:
    """Set every row's lowest change and its pair, the first of equal ones, in place."""
    best.scatter_reduce_(0, row, change, "amin")
    index = (change == best[row]).nonzero()[:, 0]
    first = torch.full_like(best, len(row), dtype=torch.int64).scatter_reduce_(0, row[index], index, "amin")
    found = (first < len(row)).nonzero()[:, 0]
    channels[found] = pairs[first[found]]


def _left_to_pair(rows: SwapRows, own: Tensor, size: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Own changes of kept and of pruned weights whose bound leaves a gain possible; infinity elsewhere."""
    kept, pruned = rows.kept(own), rows.pruned(own)
    for classes in SIZE_CLASSES:
        kept = _with_possible_gain(kept, pruned, size, reach, rows.least_gain, classes)
        pruned = _with_possible_gain(pruned, kept, size, reach, rows.least_gain, classes)
    return kept, pruned


def _with_possible_gain(
    own: Tensor, partners: Tensor, size: Tensor, reach: Tensor, least_gain: Tensor, classes: int
) -> Tensor:
    """Own changes of weights that may gain with a partner of any class of sizes; infinity elsewhere."""
    size = size.masked_fill(partners == torch.inf, 0)
    unit = size.amax(1, keepdim=True) / classes
    of_class = (size / unit).nan_to_num_(0).long().clamp_max_(classes - 1)
    lowest = own.new_full((len(own), classes), torch.inf).scatter_reduce_(1, of_class, partners, "amin")
    best_partner = torch.full_like(own, torch.inf)
    for number in range(classes):  # each holds sizes up to (number + 1) units
        torch.minimum(best_partner, lowest[:, number, None] - reach * (unit * (number + 1)), out=best_partner)
    return own.masked_fill(own + best_partner >= -least_gain[:, None], torch.inf)
