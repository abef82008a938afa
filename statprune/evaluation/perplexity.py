"""Perplexity on non-overlapping windows."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from statprune.model.matrix import Block
from statprune.walk.activations import OnDevice, StoreHidden
from statprune.walk.batches import advance, capture, logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def window_losses(
    model: "PreTrainedModel", windows: Tensor, batch_size: int = 4, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Mean negative log-likelihood (nats) of the seq_len − 1 predicted tokens of each window, float64.

    Args:
        model: a causal language model.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward.
        progress: called with the number of windows done.

    Example:
        >>> from statprune import evaluation_windows, load_model, window_losses
        >>> loaded = load_model()
        >>> windows = evaluation_windows(loaded.tokenizer, seq_len=64, max_windows=3)
        >>> window_losses(loaded.model, windows.ids).shape
        torch.Size([3])
    """
    losses: list[Tensor] = []
    for ids in windows.to(model.device).split(batch_size):
        losses += _losses(model(input_ids=ids, use_cache=False).logits, ids)
        if progress is not None:
            progress(len(losses))
    return torch.stack(losses).cpu()


@torch.no_grad()
def window_losses_by_block(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    windows: Tensor,
    batch_size: int = 4,
    store: StoreHidden = OnDevice,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """As ``window_losses``, to the last bit, but all windows go through one block after the other.

    Args:
        model: a causal language model.
        blocks: its decoder blocks, each of which is loaded once.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward.
        store: what stores hidden states between blocks.
        progress: called with the number of windows done, where a block counts as its share of all.
    """
    batches = capture(model, blocks, windows, batch_size, store)
    for done, block in enumerate(blocks):
        with block.loaded():
            advance(block, batches)
        if progress is not None:
            progress(len(windows) * (done + 1) // (len(blocks) + 1))
    losses: list[Tensor] = []
    for batch, ids in zip(batches, windows.to(model.device).split(batch_size), strict=True):
        losses += _losses(logits(model, blocks, batch, ids), ids)
    if progress is not None:
        progress(len(windows))
    return torch.stack(losses).cpu()


def _losses(logits: Tensor, ids: Tensor) -> list[Tensor]:
    return [cross_entropy(row[:-1].float(), target[1:]).double() for row, target in zip(logits, ids, strict=True)]


def perplexity(model: "PreTrainedModel", windows: Tensor, batch_size: int = 4) -> float:
    """Exp of the mean window loss; ``evaluate`` also gives its standard error.

    Example:
        >>> from statprune import evaluation_windows, load_model, perplexity
        >>> loaded = load_model()
        >>> perplexity(loaded.model, evaluation_windows(loaded.tokenizer, seq_len=64, max_windows=3).ids) > 1
        True
    """
    return window_losses(model, windows, batch_size).mean().exp().item()
