"""Fidelity to a model that is pruned in place: its last hidden states are kept, and its logits made again from them.

Final norm and head are not prunable. What the dense model's last block puts out therefore is all that its predictions
need, and takes far less room than they do: a hidden state a token in place of a logit for every word.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.evaluation.fidelity import WindowFidelity, compared
from statprune.evaluation.perplexity import losses_of
from statprune.model.matrix import Block
from statprune.walk.activations import StoredHidden, StoreHidden
from statprune.walk.batches import Batch, hidden_of, logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Stop(Exception):
    """Ends the model's forward after the last block."""


@torch.no_grad()
def last_states(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    windows: Tensor,
    batch_size: int,
    store: StoreHidden,
    progress: Callable[[int], None] | None = None,
) -> list[StoredHidden]:
    """What the last block puts out for each batch of windows; norm and head are not computed.

    Args:
        model: a causal language model on its device.
        blocks: its decoder blocks in order.
        windows: token ids, (windows, seq_len).
        batch_size: windows per forward.
        store: what stores hidden states.
        progress: called with the number of windows done.
    """
    done = 0
    with keeping_last_states(blocks, store, stops=True) as kept:
        for ids in windows.to(model.device).split(batch_size):
            with suppress(_Stop):
                model(input_ids=ids, use_cache=False)
            done += len(ids)
            if progress is not None:
                progress(done)
    return kept


@contextmanager
def keeping_last_states(
    blocks: Sequence[Block], store: StoreHidden, stops: bool = False
) -> Iterator[list[StoredHidden]]:
    """Keep what the last block puts out, one entry for each forward of the model in the body.

    Args:
        blocks: of the model, in order.
        store: what stores hidden states.
        stops: end each forward there.
    """
    kept: list[StoredHidden] = []

    def keep(_module: nn.Module, _arguments: object, output: object) -> None:
        hidden = hidden_of(output)
        if hidden is None:
            raise ModelError(f"{blocks[-1].path} returns no hidden states; give evaluation.fidelity=false")
        kept.append(store(hidden.detach().clone(memory_format=torch.contiguous_format)))
        if stops:
            raise _Stop

    handle = blocks[-1].module.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


class FidelityMeter:
    """Compares the pruned model's logits, batch by batch, with those of the dense model; an ``OnLogits``.

    To the last bit the result is that of ``window_fidelity`` with both models in memory and the same batches.

    Args:
        model: the pruned model, whose final norm and head are the dense model's.
        blocks: of the model.
        states: of the dense model, of the same batches of windows in the same order.
    """

    def __init__(self, model: "PreTrainedModel", blocks: Sequence[Block], states: Sequence[StoredHidden]):
        self._model, self._blocks, self._states = model, blocks, states
        self._divergences: list[Tensor] = []
        self._agreements: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._batch = 0

    def __call__(self, ids: Tensor, actual: Tensor) -> None:
        """Compare the next batch.

        Args:
            ids: of its windows, (windows, seq_len).
            actual: the pruned model's logits, (windows, seq_len, vocabulary).
        """
        stored = self._states[self._batch]
        self._batch += 1
        if self._batch < len(self._states):
            self._states[self._batch].send()
        expected = logits(self._model, self._blocks, Batch(stored, len(ids), ids.numel(), []), ids)
        self._losses += losses_of(expected, ids)
        for dense, pruned in zip(expected, actual, strict=True):
            divergence, agreement = compared(dense[:-1], pruned[:-1])
            self._divergences.append(divergence)
            self._agreements.append(agreement)

    @property
    def fidelity(self) -> WindowFidelity:
        """Of the windows so far."""
        return WindowFidelity(_stacked(self._divergences), _stacked(self._agreements))

    @property
    def dense_losses(self) -> Tensor:
        """Losses by the logits that were made again, (windows,): they are the dense model's, or the states are not."""
        return _stacked(self._losses)


def _stacked(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).cpu() if values else torch.empty(0, dtype=torch.float64, device="cpu")
