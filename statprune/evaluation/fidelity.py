"""Fidelity: how far a pruned model's predictions are from the dense model's, on any text and without labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.core.row_chunks import row_chunks
from statprune.errors import ModelError
from statprune.system.devices import full_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COPIES = 5  # of a position's logits at a time, in float64: pruning/budget.py counts them


@dataclass(frozen=True)
class WindowFidelity:
    """Means over the seq_len − 1 predicted tokens of each window, float64, (windows,).

    Attributes:
        divergence: Kullback-Leibler divergence of the pruned model's next-token distribution from the dense one's, in
            nats: Σ p (log p − log q), p being the dense one.
        agreement: share of tokens for which both models find the same next token most likely.
    """

    divergence: Tensor
    agreement: Tensor


@dataclass(frozen=True)
class WindowResults:
    """What was measured of a model's windows.

    Attributes:
        losses: of each window in nats, by dataset.
        fidelity: to the dense model by dataset; None: it was not measured.
    """

    losses: dict[str, Tensor]
    fidelity: dict[str, WindowFidelity] | None


@full_float32()
@torch.no_grad()
def window_fidelity(
    dense: "PreTrainedModel",
    pruned: "PreTrainedModel",
    windows: Tensor,
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
) -> WindowFidelity:
    """Compare two models' predictions window by window.

    Args:
        dense: the reference.
        pruned: a model with the same vocabulary.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward of each model.
        progress: called with the number of windows done.

    Raises:
        ModelError: the models have different vocabularies.
    """
    divergences: list[Tensor] = []
    agreements: list[Tensor] = []
    for ids in windows.split(batch_size):
        logits = [model(input_ids=ids.to(model.device), use_cache=False).logits for model in (dense, pruned)]
        if logits[0].shape != logits[1].shape:
            sizes = " and ".join(str(own.shape[-1]) for own in logits)
            raise ModelError(f"fidelity needs two models of one vocabulary, and these have {sizes} tokens")
        for expected, actual in zip(*logits, strict=True):
            divergence, agreement = compared(expected[:-1], actual[:-1])
            divergences.append(divergence)
            agreements.append(agreement)
        if progress is not None:
            progress(len(divergences))
    return WindowFidelity(torch.stack(divergences).cpu(), torch.stack(agreements).cpu())


def compared(expected: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """Mean divergence and agreement of one window, float64, ().

    Args:
        expected: the dense model's logits, (tokens, vocabulary).
        actual: the pruned model's.
    """
    divergence = torch.zeros((), dtype=torch.float64, device=expected.device)
    agreement = torch.zeros_like(divergence)
    for rows in row_chunks(expected, COPIES * expected.shape[-1]):
        log_p = expected[rows].double().log_softmax(-1)
        log_q = actual[rows].to(expected.device).double().log_softmax(-1)
        terms = log_p.exp() * (log_p - log_q)
        divergence += terms.masked_fill_(log_p == -torch.inf, 0).sum()  # what is impossible adds nothing
        agreement += (log_p.argmax(-1) == log_q.argmax(-1)).sum()
    return divergence / len(expected), agreement / len(expected)
