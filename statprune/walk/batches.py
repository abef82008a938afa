"""Batches of windows on their way through a model, block by block."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from statprune.errors import ModelError
from statprune.model.matrix import Block
from statprune.walk.activations import OnDevice, OnePiece, StoredHidden, StoreHidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BlockCall:
    """What a model calls a block with.

    Attributes:
        hidden: the hidden states; None where the block is called without any.
        args: the other positional arguments.
        kwargs: the other keyword arguments.
    """

    hidden: Tensor | None
    args: tuple[object, ...]
    kwargs: Mapping[str, object]

    @classmethod
    def of(cls, args: tuple[object, ...], kwargs: Mapping[str, object]) -> "BlockCall":
        """Split the arguments of a call."""
        hidden = args[0] if args else kwargs.get("hidden_states")
        others = kwargs if args else {key: value for key, value in kwargs.items() if key != "hidden_states"}
        return cls(hidden if isinstance(hidden, Tensor) else None, args[1:], others)

    def sharing(self, first: "BlockCall | None") -> "BlockCall":
        """The arguments without the hidden states, in the tensors of ``first`` where they are equal.

        The masks of a long calibration set are so stored once.
        """
        kwargs = {key: _shared(value, first.kwargs.get(key) if first else None) for key, value in self.kwargs.items()}
        return BlockCall(None, _shared(self.args, first.args if first else ()), kwargs)


@dataclass
class Batch:
    """A batch of windows on its way through the model.

    Attributes:
        stored: input of the next block, (windows, seq_len, hidden_size) in most models, where it waits.
        windows: how many there are.
        tokens: how many there are.
        calls: for every block, the arguments besides the hidden states that the model calls it with.
    """

    stored: StoredHidden
    windows: int
    tokens: int
    calls: list[BlockCall]

    @property
    def hidden(self) -> Tensor:
        """Input of the next block, on the device."""
        return self.stored.get()

    @hidden.setter
    def hidden(self, value: Tensor) -> None:
        self.stored = self.stored.replaced(value)

    def copy(self) -> "Batch":
        """The same windows on a way of their own."""
        return replace(self, stored=self.stored.copy())

    def run(self, block: Block) -> Tensor:
        """The block's output hidden states."""
        call = self.calls[block.index]
        hidden = hidden_of(block.module(self.hidden, *call.args, **call.kwargs))
        if hidden is None:
            raise ModelError(f"{block.path} returns no hidden states; it can't be pruned")
        return hidden


class _Stop(Exception):
    """Ends the model's forward once the last block was reached."""


class _Capture:
    """Stands in for the blocks of one forward: takes note of their arguments and computes nothing."""

    def __init__(self, blocks: Sequence[Block], first_batch: Batch | None):
        self.calls: list[BlockCall] = []
        self.first_hidden: Tensor | None = None
        self._blocks, self._first_batch = blocks, first_batch

    def forward(self, index: int, call: BlockCall) -> object:
        """What block ``index`` returns: its input."""
        if self.first_hidden is None:
            self.first_hidden = call.hidden
        self.calls.append(call.sharing(self._first_batch.calls[index] if self._first_batch else None))
        if index == len(self._blocks) - 1:
            raise _Stop
        return _output_like(self._blocks[index], call.hidden)


class _Replay:
    """Stands in for the blocks of one forward: the last one returns what a batch holds after it."""

    def __init__(self, blocks: Sequence[Block], batch: Batch):
        self._blocks, self._batch = blocks, batch

    def forward(self, index: int, call: BlockCall) -> object:
        """What block ``index`` returns."""
        is_last = index == len(self._blocks) - 1
        hidden = self._batch.hidden if is_last else call.hidden
        return _output_like(self._blocks[index], hidden)


Forward = Callable[[int, BlockCall], object]  # called with the number of the block


def in_turn(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The batches; while one is worked on, the next one's hidden states are on their way."""
    for batch, following in itertools.zip_longest(batches, batches[1:]):
        if following is not None:
            following.stored.send()
        yield batch


def capture(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    windows: Tensor,
    batch_size: int,
    store: StoreHidden = OnDevice,
) -> list[Batch]:
    """The first block's inputs and every block's own arguments, without computing the blocks.

    Args:
        model: a causal language model.
        blocks: its decoder blocks in order.
        windows: token ids, (samples, seq_len).
        batch_size: windows per batch.
        store: what stores hidden states between blocks.

    Raises:
        ModelError: the blocks are another model's.
    """
    batches: list[Batch] = []
    together = OnePiece(len(windows)) if store is OnDevice and model.device.type == "cpu" else None
    for ids in windows.split(batch_size):
        captured = _Capture(blocks, batches[0] if batches else None)
        with _replaced(blocks, captured.forward), suppress(_Stop):
            model(input_ids=ids.to(model.device), use_cache=False)
        if len(captured.calls) < len(blocks) or captured.first_hidden is None:
            raise ModelError(f"{type(model).__name__} does not call these blocks; find them in this very model")
        if together is not None:
            hidden = together.hold(captured.first_hidden, len(ids))
        else:
            hidden = captured.first_hidden.clone(memory_format=torch.contiguous_format)
        batches.append(Batch(store(hidden), len(ids), ids.numel(), captured.calls))
    return batches


def advance(block: Block, batches: Sequence[Batch]) -> None:
    """Replace every batch's hidden states by the block's outputs."""
    for batch in in_turn(batches):
        batch.hidden = batch.run(block)


def logits(model: "PreTrainedModel", blocks: Sequence[Block], batch: Batch, ids: Tensor) -> Tensor:
    """What the model's head makes of the last block's outputs.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        batch: after the last block.
        ids: its token ids.
    """
    with _replaced(blocks, _Replay(blocks, batch).forward):
        result: Tensor = model(input_ids=ids, use_cache=False).logits
    return result


def hidden_of(output: object) -> Tensor | None:
    """The hidden states in what a block returns: the tensor, or a tuple's or list's first item; None without any."""
    hidden = output[0] if isinstance(output, tuple | list) and output else output
    return hidden if isinstance(hidden, Tensor) else None


def _output_like(block: Block, hidden: Tensor | None) -> object:
    """``hidden`` in the form in which the block returns it."""
    return hidden if block.extra_outputs is None else (hidden, *block.extra_outputs)


def _shared(value: Any, first: Any) -> Any:  # noqa: ANN401 - arguments of any type
    """``first`` where it equals ``value``, so that equal tensors are stored once."""
    if isinstance(value, Tensor):
        is_equal = isinstance(first, Tensor) and value.shape == first.shape and torch.equal(value, first)
        return first if is_equal else value
    if isinstance(value, tuple) and isinstance(first, tuple) and len(value) == len(first):
        return tuple(_shared(a, b) for a, b in zip(value, first, strict=True))
    return value


@contextmanager
def _replaced(blocks: Sequence[Block], forward: Forward) -> Iterator[None]:
    """Have ``forward`` in place of the blocks' own."""
    # an instance's own forward (accelerate's hooks set one) is put back at the end
    own = [block.module.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.module.forward = _Replacement(forward, block.index)
    try:
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            del block.module.forward
            if before is not None:
                block.module.forward = before


@dataclass(frozen=True)
class _Replacement:
    """The forward of one block while another stands in for it."""

    forward: Forward
    index: int

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.forward(self.index, BlockCall.of(args, kwargs))
