"""Walk a model block by block: capture what each block is called with, and run one block over all windows."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.models import Layer
from statprune.statistics import InputStatistics, StatisticsKind


class _Stop(Exception):
    """Ends the model's forward once the last block was reached."""


@dataclass
class Batch:
    """A batch of windows on its way through the model.

    Attributes:
        hidden: input of the next block, (windows, seq_len, hidden_size).
        calls: for every block, the arguments besides the hidden states that the model calls it with.
    """

    hidden: Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def run(self, block: nn.Module, index: int) -> Tensor:
        """The block's output hidden states."""
        args, kwargs = self.calls[index]
        return _hidden(block(self.hidden, *args, **kwargs))


def capture(model: Any, blocks: list[nn.Module], windows: Tensor, batch_size: int) -> list[Batch]:
    """The first block's inputs and every block's own arguments, without computing the blocks.

    Args:
        model: a causal language model.
        blocks: its decoder blocks in order.
        windows: token ids, (samples, seq_len).
        batch_size: windows per batch.

    Raises:
        ModelError: the model does not feed each block's output to the next, or sees future tokens.
    """
    outputs = check_chain(model, blocks, windows)
    batches: list[Batch] = []
    for ids in windows.split(batch_size):
        inputs: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def skip(index: int, inputs: list[Tensor] = inputs, calls: list[Any] = calls) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden, args, kwargs = _split(args, kwargs)
                inputs.append(hidden)
                known = batches[0].calls[index] if batches else ((), {})
                calls.append((_share(args, known[0]), _share(kwargs, known[1])))
                if index == len(blocks) - 1:
                    raise _Stop
                output = outputs[index]
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            return forward

        with _replaced(blocks, skip), suppress(_Stop):
            model(input_ids=ids.to(model.device), use_cache=False)
        batches.append(Batch(inputs[0], calls))
    return batches


@torch.no_grad()
def check_chain(model: Any, blocks: list[nn.Module], windows: Tensor) -> list[Any]:
    """Run the windows' first tokens to learn how blocks answer, and that the model is a causal chain of its blocks.

    Returns:
        Each block's output, as the model receives it.

    Raises:
        ModelError: an output is not finite, the model does not feed each block's output to the next, or tokens
            see later ones.
    """
    ids = windows[:1, :8]
    seen: list[tuple[Tensor, Any]] = []
    hooks = [
        block.register_forward_hook(
            lambda _, args, kwargs, output: seen.append((_split(args, kwargs)[0], output)), with_kwargs=True
        )
        for block in blocks
    ]
    try:
        model(input_ids=ids.to(model.device), use_cache=False)
        first, seen = seen, []
        other = ids.clone()
        other[:, -1] = (other[:, -1] + 1) % model.get_input_embeddings().num_embeddings
        model(input_ids=other.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    chained = len(first) == len(blocks) and all(
        torch.equal(_hidden(before[1]), after[0]) for before, after in itertools.pairwise(first)
    )
    name = type(model).__name__
    for index, (_, output) in enumerate(first):
        if not _hidden(output).isfinite().all():
            raise ModelError(
                f"block {index} of {name} gives values that are not finite; its weights are damaged, "
                "or overflow where model.dtype=float32 would not"
            )
    if not chained:
        raise ModelError(f"{name} does not pass each decoder block's output straight to the next; it can't be pruned")
    past, past_other = (_hidden(run[-1][1])[:, :-1].float() for run in (first, seen))
    tolerance = 32 * torch.finfo(first[-1][0].dtype).eps * past.abs().max().item()
    if not torch.allclose(past, past_other, rtol=0, atol=tolerance):
        raise ModelError(f"{name} lets tokens see later ones; only causal decoder language models can be pruned")
    return [output for _, output in first]


def observe(
    block: nn.Module,
    index: int,
    layers: list[Layer],
    batches: list[Batch],
    kind: StatisticsKind,
    sample_index: Tensor,
    advance: bool,
) -> dict[str, InputStatistics]:
    """Run the block over all windows and collect each layer's input statistics; shared inputs share them.

    Args:
        block: the block, ``index`` its number.
        layers: its prunable layers.
        batches: the windows; ``advance`` replaces their hidden states by the block's outputs.
        kind: what to collect.
        sample_index: token numbers whose input rows are kept.
        advance: see ``batches``.

    Returns:
        Statistics by layer name; layers fed the very same tensor get the same object.

    Raises:
        ModelError: a layer was never called, or a layer shares its input with others only in some batches.
    """
    statistics: dict[str, InputStatistics] = {}
    # the tensors are held until the batch ends, so that an id can't be reused for another tensor
    current: dict[int, tuple[Tensor, InputStatistics]] = {}

    def hook(layer: Layer) -> Callable[..., None]:
        def collect(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0]
            shared = current.get(id(inputs))
            if shared is None:
                own = statistics.get(layer.name)
                if own is None:
                    own = InputStatistics(inputs.shape[-1], kind, sample_index, inputs.device)
                own.update(inputs)
                shared = current[id(inputs)] = (inputs, own)
            if statistics.setdefault(layer.name, shared[1]) is not shared[1]:
                raise ModelError(f"layer {index}.{layer.name} shares its input with other layers only at times")

        return collect

    hooks = [layer.module.register_forward_pre_hook(hook(layer)) for layer in layers]
    try:
        for batch in batches:
            output = batch.run(block, index)
            current.clear()
            if advance:
                batch.hidden = output
    finally:
        for handle in hooks:
            handle.remove()
    missing = [layer.name for layer in layers if layer.name not in statistics]
    if missing:
        raise ModelError(f"block {index}: no calibration token reached {', '.join(missing)}; it can't be pruned")
    return statistics


def advance(block: nn.Module, index: int, batches: list[Batch]) -> None:
    """Replace every batch's hidden states by the block's outputs."""
    for batch in batches:
        batch.hidden = batch.run(block, index)


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    if args:
        return args[0], args[1:], kwargs
    return kwargs["hidden_states"], (), {k: v for k, v in kwargs.items() if k != "hidden_states"}


def _share(value: Any, known: Any) -> Any:
    """``known`` where it equals ``value``: masks of a long calibration set are stored once."""
    if isinstance(value, Tensor):
        same = isinstance(known, Tensor) and value.shape == known.shape and torch.equal(value, known)
        return known if same else value
    if isinstance(value, tuple) and isinstance(known, tuple) and len(value) == len(known):
        return tuple(_share(a, b) for a, b in zip(value, known, strict=True))
    if isinstance(value, dict):
        return {key: _share(item, known.get(key)) for key, item in value.items()}
    return value


@contextmanager
def _replaced(blocks: list[nn.Module], forward: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
    for index, block in enumerate(blocks):
        block.forward = forward(index)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
