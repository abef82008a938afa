"""Weights and calibration inputs that are not finite, found before a method makes numbers of them."""

import torch
from torch import Tensor

from statprune.core.statistics import InputStatistics, StatisticsKind


def check_finite(weight: Tensor, statistics: InputStatistics) -> None:
    """Refuse a matrix whose numbers would be true of nothing.

    On a GPU nothing is looked at, since that would wait for it: scores, Gram matrices and stored weights tell there.

    Args:
        weight: (out_features, in_features).
        statistics: of its input; where they have no moments, their sampled rows are looked at.

    Raises:
        ValueError: a weight or an input is NaN or infinite.
    """
    if weight.is_cuda:
        return
    if not weight.sum().isfinite() and not weight.isfinite().all():  # a sum may overflow: hence the second look
        count, (row, column) = int((~weight.isfinite()).sum()), (~weight.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{count} of its {weight.numel()} weights are NaN or infinite, first that of output {row} and input "
            f"{column}; the checkpoint is damaged, or needs a model.dtype with a wider range"
        )
    has_moments = statistics.kind >= StatisticsKind.MOMENTS
    seen = torch.stack([statistics.mean, statistics.variance]) if has_moments else statistics.rows
    if not seen.sum().isfinite() and not seen.isfinite().all():
        channels = (~seen.isfinite()).any(0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"its calibration inputs are NaN or infinite in {len(channels)} of {seen.shape[1]} channels, first in "
            f"channel {channels[0]}; what comes before it overflows or is damaged: choose a model.dtype with a wider "
            "range, such as float32"
        )


def check_gram(gram: Tensor) -> None:
    """Refuse a Gram matrix that inputs have overflowed; on a GPU it is waited for.

    Args:
        gram: (in_features, in_features).

    Raises:
        ValueError: it holds NaN or infinity.
    """
    if not gram.sum().isfinite() and not gram.isfinite().all():  # a sum may overflow: hence the second look
        raise ValueError("the Gram matrix is not finite; the calibration inputs overflow")


def dead_channels(gram: Tensor, statistics: InputStatistics, stage: str) -> Tensor:
    """Channels that are zero in every token, (in_features,), bool.

    Args:
        gram: of the inputs, in any unit, (in_features, in_features).
        statistics: of the same inputs.
        stage: that can't do without the squares, method or compensation; for the sentence.

    Raises:
        ValueError: the squares of a channel that is not zero have vanished.
    """
    is_dead = gram.diagonal() == 0
    if (is_dead & (statistics.norm > 0)).any():
        raise ValueError(f"its calibration inputs are so small that their squares vanish; choose another {stage}")
    return is_dead
