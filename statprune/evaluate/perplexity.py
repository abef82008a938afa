"""Perplexity on non-overlapping windows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@torch.no_grad()
def window_losses(
    model: Any, windows: Tensor, batch_size: int = 4, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Mean negative log-likelihood (nats) of the seq_len − 1 predicted tokens of each window, float64.

    Args:
        model: a causal language model.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward.
        progress: called with the number of windows done.
    """
    losses: list[Tensor] = []
    for ids in windows.split(batch_size):
        ids = ids.to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits
        for row, target in zip(logits, ids, strict=True):
            losses.append(cross_entropy(row[:-1].float(), target[1:]).double())
        if progress is not None:
            progress(len(losses))
    return torch.stack(losses).cpu()


def perplexity(model: Any, windows: Tensor, batch_size: int = 4) -> float:
    """exp of the mean window loss."""
    return window_losses(model, windows, batch_size).mean().exp().item()
