"""Walk a model block by block: capture what each block is called with, and run one block over all windows."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.loading import Block, Layer
from statprune.system.distributed import gathered, size
from statprune.walk.activations import Keep, Kept, OnDevice
from statprune.walk.products import Products, Use


class _Stop(Exception):
    """Ends the model's forward once the last block was reached."""


@dataclass
class Batch:
    """A batch of windows on its way through the model.

    Attributes:
        kept: input of the next block, (windows, seq_len, hidden_size) in most models, where it waits.
        windows: how many there are.
        tokens: how many there are.
        calls: for every block, the arguments besides the hidden states that the model calls it with.
    """

    kept: Kept
    windows: int
    tokens: int
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def hidden(self) -> Tensor:
        """Input of the next block, on the device."""
        return self.kept.get()

    @hidden.setter
    def hidden(self, value: Tensor) -> None:
        self.kept = self.kept.replaced(value)

    def copy(self) -> "Batch":
        """The same windows on another way."""
        return replace(self, kept=self.kept.copy())

    def run(self, block: Block) -> Tensor:
        """The block's output hidden states."""
        args, kwargs = self.calls[block.index]
        return hidden_of(block.module(self.hidden, *args, **kwargs))


def in_turn(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The batches; the next one's hidden states are sent for while one is worked on."""
    for batch, following in itertools.zip_longest(batches, batches[1:]):
        if following is not None:
            following.kept.send()
        yield batch


def capture(model: Any, blocks: list[Block], windows: Tensor, batch_size: int, keep: Keep = OnDevice) -> list[Batch]:
    """The first block's inputs and every block's own arguments, without computing the blocks.

    Args:
        model: a causal language model.
        blocks: its decoder blocks in order.
        windows: token ids, (samples, seq_len).
        batch_size: windows per batch.
        keep: where hidden states wait.

    Raises:
        ModelError: the blocks are another model's.
    """
    batches: list[Batch] = []
    for ids in windows.split(batch_size):
        inputs: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def skip(index: int, inputs: list[Tensor] = inputs, calls: list[Any] = calls) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden, args, kwargs = split_call(args, kwargs)
                inputs.append(hidden)
                known = batches[0].calls[index] if batches else ((), {})
                shared = {key: _share(value, known[1].get(key)) for key, value in kwargs.items()}
                calls.append((_share(args, known[0]), shared))
                if index == len(blocks) - 1:
                    raise _Stop
                extra = blocks[index].extra
                return hidden if extra is None else (hidden, *extra)

            return forward

        with _replaced(blocks, skip), suppress(_Stop):
            model(input_ids=ids.to(model.device), use_cache=False)
        if len(calls) < len(blocks):
            raise ModelError(f"{type(model).__name__} does not call the blocks given; find them in this very model")
        kept = keep(inputs[0].clone(memory_format=torch.contiguous_format))
        batches.append(Batch(kept, len(ids), ids.numel(), calls))
    return batches


def observe(
    block: Block,
    batches: list[Batch],
    kind: StatisticsKind,
    sample_index: Tensor | None,
    advance: bool,
    min_expert_tokens: int = 0,
) -> dict[str, InputStatistics]:
    """Run the block over all windows and collect each layer's input statistics; shared inputs share them.

    Args:
        block: the block.
        batches: the windows; ``advance`` replaces their hidden states by the block's outputs.
        kind: what to collect.
        sample_index: token numbers whose input rows are kept.
        advance: see ``batches``.
        min_expert_tokens: an expert that fewer tokens reach gets the statistics of its whole mixture, and those of
            channels that are all alike where no token reaches any of its experts.

    Returns:
        Statistics by layer name; layers fed the very same tensor get the same object.

    Raises:
        ModelError: a layer was never called, or a layer shares its input with others only in some batches.
    """
    collector = Collector(block, kind, sample_index)
    for batch in in_turn(batches):
        with Products(block.module, collector.view(batch)):
            output = batch.run(block)
        if advance:
            batch.hidden = output
    return collector.finished(min_expert_tokens)


@dataclass(frozen=True)
class Seen:
    """A product that a collector has taken note of.

    Attributes:
        layer: the layer.
        first: name of the first layer that had the very same input; the layer's own where none had.
        new: the input had not been seen yet.
    """

    layer: Layer
    first: str
    new: bool


class Collector:
    """Updates the input statistics of a block's layers as their products are seen.

    Attributes:
        statistics: by layer name; layers fed the very same tensor have the same object, updated once.
    """

    def __init__(self, block: Block, kind: StatisticsKind, sample_index: Tensor | None):
        self.statistics: dict[str, InputStatistics] = {}
        self._merged: set[int] = set()
        self._block, self._kind, self._sample_index = block, kind, sample_index
        self._layers = {(layer.parameter_name, layer.index): layer for layer in block.layers}

    def view(self, batch: Batch) -> Callable[[Use], Seen | None]:
        """What takes the products of one batch of windows, in its order."""
        seen: dict[Any, tuple[StorageWeakRef, InputStatistics]] = {}
        updated_by: dict[int, str] = {}

        def see(use: Use) -> Seen | None:
            layer = self._layers.get((use.name, use.index))
            if layer is None or use.inputs.numel() == 0:
                return None
            inputs = use.inputs
            identity = (inputs.data_ptr(), inputs.shape, inputs.stride(), inputs._version)
            known = seen.get(identity)
            by_itself = True
            new = known is None or known[0].expired()  # memory is used again once its tensor is gone
            if known is None or new:
                own = self.statistics.get(layer.name)
                if own is None:
                    own = InputStatistics(inputs.shape[-1], self._kind, self._sample_index, inputs.device)
                known = seen[identity] = (StorageWeakRef(inputs.untyped_storage()), own)
                by_itself = updated_by.setdefault(id(own), layer.name) == layer.name
                flat = inputs.ndim == 2 and len(inputs) == batch.tokens
                own.update(inputs.unflatten(0, (batch.windows, -1)) if flat else inputs)
            if self.statistics.setdefault(layer.name, known[1]) is not known[1] or not by_itself:
                raise ModelError(
                    f"layer {self._block.full(layer)} shares its input with other layers only at times; "
                    "leave it out with model.exclude"
                )
            return Seen(layer, updated_by[id(known[1])], new)

        return see

    def complete(self, layer: Layer) -> InputStatistics:
        """The layer's statistics once all windows have come to it, in all processes, which all call this."""
        statistics = self.statistics[layer.name]
        if size() > 1 and id(statistics) not in self._merged:
            self._merged.add(id(statistics))
            statistics.merge_processes()
        return statistics

    def finished(self, min_expert_tokens: int) -> dict[str, InputStatistics]:
        """The statistics once all windows have passed; experts that few tokens reached have those of their mixture.

        Raises:
            ModelError: no token reached a layer.
        """
        if size() > 1:
            self._share_alike()
        for layer in self._block.layers:
            if layer.name in self.statistics:
                self.complete(layer)
        _pool_experts(self._block, self.statistics, self._kind, min_expert_tokens)
        return self.statistics

    def _share_alike(self) -> None:
        """Have statistics of the same layers in all processes, shared by the same, where some saw no token."""
        first: dict[int, str] = {}
        mine = {name: first.setdefault(id(value), name) for name, value in self.statistics.items()}
        known: dict[str, str] = {}
        for names in gathered(mine):
            known = names | known
        for layer in self._block.layers:
            if layer.name in known and layer.name not in self.statistics:
                empty = InputStatistics(layer.in_features, self._kind, None, layer.parameter.device)
                self.statistics[layer.name] = self.statistics.setdefault(known[layer.name], empty)


def _pool_experts(
    block: Block, statistics: dict[str, InputStatistics], kind: StatisticsKind, min_expert_tokens: int
) -> None:
    """Give every expert that too few tokens reached the merged statistics of all experts of its mixture."""
    stacks: dict[str, list[Layer]] = {}
    for layer in block.layers:
        if layer.stack is not None:
            stacks.setdefault(layer.stack, []).append(layer)
        elif layer.name not in statistics:
            raise ModelError(f"no calibration token reached {block.full(layer)}; leave it out with model.exclude")
    for layers in stacks.values():
        counts = {layer.name: statistics[layer.name].count if layer.name in statistics else 0 for layer in layers}
        few = {name: count for name, count in counts.items() if count < max(min_expert_tokens, 1)}
        seen = [statistics[name] for name, count in counts.items() if count]
        if few and seen:
            pooled = InputStatistics.pooled(seen)
        elif few:
            pooled = InputStatistics.unknown(layers[0].in_features, kind, layers[0].parameter.device)
        statistics |= {name: pooled.shared_by(count) for name, count in few.items()}


def advance(block: Block, batches: list[Batch]) -> None:
    """Replace every batch's hidden states by the block's outputs."""
    for batch in in_turn(batches):
        batch.hidden = batch.run(block)


def logits(model: Any, blocks: list[Block], batch: Batch, ids: Tensor) -> Tensor:
    """What the model makes of the last block's outputs.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        batch: after the last block.
        ids: its token ids.
    """

    def give(index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = batch.hidden if index == len(blocks) - 1 else split_call(args, kwargs)[0]
            extra = blocks[index].extra
            return hidden if extra is None else (hidden, *extra)

        return forward

    with _replaced(blocks, give):
        return model(input_ids=ids, use_cache=False).logits


def hidden_of(output: Any) -> Any:
    """The hidden states in what a block returns: the tensor, or a tuple's or list's first item."""
    return output[0] if isinstance(output, tuple | list) else output


def split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A block's arguments as (hidden states, other positional ones, other keyword ones)."""
    if args:
        return args[0], args[1:], kwargs
    return kwargs.get("hidden_states"), (), {k: v for k, v in kwargs.items() if k != "hidden_states"}


def _share(value: Any, known: Any) -> Any:
    """``known`` where it equals ``value``: masks of a long calibration set are stored once."""
    if isinstance(value, Tensor):
        same = isinstance(known, Tensor) and value.shape == known.shape and torch.equal(value, known)
        return known if same else value
    if isinstance(value, tuple) and isinstance(known, tuple) and len(value) == len(known):
        return tuple(_share(a, b) for a, b in zip(value, known, strict=True))
    return value


@contextmanager
def _replaced(blocks: list[Block], forward: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
    # a forward of the instance's own (accelerate's hooks set one) is put back
    own = [block.module.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.module.forward = forward(block.index)
    try:
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            del block.module.forward
            if before is not None:
                block.module.forward = before
