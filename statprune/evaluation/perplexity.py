"""Perplexity on non-overlapping windows."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from statprune.model.matrix import Block
from statprune.system.devices import full_float32
from statprune.walk.activations import OnDevice, StoreHidden
from statprune.walk.batches import Batch, advance, capture, logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OnLogits = Callable[[Tensor, Tensor], None]  # called with each batch's ids, (windows, seq_len), and its logits


@full_float32()
@torch.no_grad()
def window_losses(
    model: "PreTrainedModel",
    windows: Tensor,
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
    on_logits: OnLogits | None = None,
) -> Tensor:
    """Mean negative log-likelihood (nats) of the seq_len − 1 predicted tokens of each window, float64.

    Args:
        model: a causal language model.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward.
        progress: called with the number of windows done.
        on_logits: sees the logits of each batch, while they are there.

    Examples:
        >>> from statprune import evaluation_windows, load_model, window_losses
        >>> loaded = load_model()
        >>> windows = evaluation_windows(loaded.tokenizer, seq_len=64, max_windows=3)
        >>> window_losses(loaded.model, windows.ids).shape
        torch.Size([3])
    """
    losses: list[Tensor] = []
    for ids in windows.to(model.device).split(batch_size):
        losses += _measured(model(input_ids=ids, use_cache=False).logits, ids, on_logits)
        if progress is not None:
            progress(len(losses))
    return torch.stack(losses).cpu()


@full_float32()
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
    batches = batches_after_blocks(model, blocks, windows, batch_size, store, progress)
    losses = losses_after_blocks(model, blocks, batches, windows)
    if progress is not None:
        progress(len(windows))
    return losses


@full_float32()
@torch.no_grad()
def batches_after_blocks(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    windows: Tensor,
    batch_size: int,
    store: StoreHidden,
    progress: Callable[[int], None] | None,
) -> list[Batch]:
    """The first half of ``window_losses_by_block``, whose arguments it has: all windows after the last block."""
    batches = capture(model, blocks, windows, batch_size, store)
    for done, block in enumerate(blocks):
        with block.loaded():
            advance(block, batches)
        if progress is not None:
            progress(len(windows) * (done + 1) // (len(blocks) + 1))
    return batches


@full_float32()
@torch.no_grad()
def losses_after_blocks(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    batches: Sequence[Batch],
    windows: Tensor,
    on_logits: OnLogits | None = None,
) -> Tensor:
    """The second half of ``window_losses_by_block``: what norm and head make of windows after the last block.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        batches: from ``batches_after_blocks``.
        windows: token ids, (windows, seq_len).
        on_logits: sees the logits of each batch, while they are there.
    """
    losses: list[Tensor] = []
    for batch, ids in zip(batches, windows.to(model.device).split([each.windows for each in batches]), strict=True):
        losses += _measured(logits(model, blocks, batch, ids), ids, on_logits)
    return torch.stack(losses).cpu()


def _measured(logits: Tensor, ids: Tensor, on_logits: OnLogits | None) -> list[Tensor]:
    """A batch's losses; its logits are gone when this returns."""
    if on_logits is not None:
        on_logits(ids, logits)
    return losses_of(logits, ids)


def losses_of(logits: Tensor, ids: Tensor) -> list[Tensor]:
    """Mean loss of each window in nats, float64, ().

    Args:
        logits: (windows, seq_len, vocabulary).
        ids: (windows, seq_len).
    """
    return [cross_entropy(row[:-1].float(), target[1:]).double() for row, target in zip(logits, ids, strict=True)]


def perplexity(model: "PreTrainedModel", windows: Tensor, batch_size: int = 4) -> float:
    """Exp of the mean window loss; ``evaluate`` also gives its standard error.

    Examples:
        >>> from statprune import evaluation_windows, load_model, perplexity
        >>> loaded = load_model()
        >>> perplexity(loaded.model, evaluation_windows(loaded.tokenizer, seq_len=64, max_windows=3).ids) > 1
        True
    """
    return window_losses(model, windows, batch_size).mean().exp().item()
