"""Find a model's decoder blocks and their matrices from what the model does with a few tokens.

Nothing here knows a model family: blocks are the module list that passes hidden states from one item to the next,
their matrices are the parameters seen to multiply inputs (``products.py``, ``matrices.py``).
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.loading import Block, check_tokens, coverage, coverage_warning, module_lists, streamer_of
from statprune.system.malloc import give_back
from statprune.walk.batches import advance, capture, hidden_of, split_call
from statprune.walk.classify import leave_excluded, matrices
from statprune.walk.products import Products, Use

log = logging.getLogger(__name__)
PROBE_TOKENS = 64


@dataclass
class _Run:
    """What one forward did: for each candidate list its items' (index, input, output), and a product seen of each
    parameter."""

    calls: dict[str, list[tuple[int, Tensor, Any]]] = field(default_factory=dict)
    uses: dict[str, Use] = field(default_factory=dict)


@torch.inference_mode(False)
@torch.no_grad()
def find_blocks(model: Any, windows: Tensor, exclude: Sequence[str] = (), prune_routers: bool = False) -> list[Block]:
    """The decoder blocks in order, each with its prunable matrices and those left dense.

    Args:
        model: a causal language model.
        windows: token ids, (windows, seq_len); some tokens of the first window are run.
        exclude: regular expressions; matrices whose full name one of them is found in are left dense.
        prune_routers: prune the matrices that route tokens to experts, too.

    Raises:
        ModelError: the model is not a causal chain of blocks, or an expression names nothing.
    """
    ids = windows[:1, :PROBE_TOKENS]
    name = type(model).__name__
    if model.training:
        raise ModelError(f"{name} is in training mode, where dropout changes its values; call model.eval() first")
    check_tokens(model, windows)
    lists = module_lists(model)
    streamer = streamer_of(model)
    if not lists:
        raise ModelError(f"{name} has no list of decoder blocks; only decoder language models can be pruned")
    with eager_experts(model):
        run = _record(model, lists, ids)
        path = _chained(name, lists, run)
        _check_present(name, path, lists[path])
        if streamer is not None and list(lists[path]) != streamer.modules:
            raise ModelError(f"{name}'s decoder blocks are {path}, not its largest list of modules; set offload=none")
        _check_finite(name, run.calls[path])
        blocks = []
        for index, module in enumerate(lists[path]):
            output = run.calls[path][index][2]
            extra = tuple(output[1:]) if isinstance(output, tuple | list) else None
            prefix = f"{path}.{index}"
            layers, left = matrices(module, prefix, run.uses, prune_routers)
            blocks.append(Block(index, prefix, module, layers, left, extra, streamer))
        if not any(block.layers for block in blocks):
            raise ModelError(f"{name}'s blocks multiply their inputs by no parameter of theirs; nothing can be pruned")
        other, half = ids.clone(), ids.shape[1] // 2
        other[:, half:] = (other[:, half:] + 1) % model.get_input_embeddings().weight.shape[0]
        outputs = [hidden_of(part.calls[path][-1][2]) for part in (run, _record(model, {path: lists[path]}, other))]
        _check_causal(name, blocks, outputs, ids.shape[1])
        blocks = leave_excluded(blocks, exclude)
        _check_shared(name, blocks)
        _check_walk(name, model, blocks, torch.cat([ids, other]), outputs)
    give_back()  # logits over a large vocabulary
    warning = coverage_warning(coverage(blocks))
    if warning:
        log.warning(warning)
    return blocks


@contextmanager
def eager_experts(model: Any) -> Iterator[None]:
    """Let fused mixtures run expert by expert, so that each expert's own inputs can be seen."""
    if not hasattr(model, "set_experts_implementation"):
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _record(model: Any, lists: dict[str, Any], ids: Tensor) -> _Run:
    """Run ``ids`` and note how the items of the lists are called, and which matrices multiply what."""
    run = _Run({path: [] for path in lists})
    hooks = []
    for path, items in lists.items():
        for index, item in enumerate(items):

            def note(_: Any, args: Any, kwargs: Any, output: Any, path: str = path, index: int = index) -> None:
                hidden, _, _ = split_call(args, kwargs)
                if hidden is not None:
                    run.calls[path].append((index, hidden, output))

            hooks.append(item.register_forward_hook(note, with_kwargs=True))

    def see(use: Use) -> None:
        run.uses.setdefault(use.name, use)

    products = Products(model, see)
    streamer = streamer_of(model)
    listeners = streamer.on_load if streamer is not None else []
    listeners.append(products.refresh)
    try:
        with products:
            model(input_ids=ids.to(model.device), use_cache=False)
    except ModelError:
        raise
    except Exception as error:  # a model of another kind fails in its own way
        reason = first_line(error)
        raise ModelError(
            f"{type(model).__name__} can't run on token ids alone ({type(error).__name__}: {reason}); "
            "only decoder language models can be pruned"
        ) from error
    finally:
        listeners.remove(products.refresh)
        for hook in hooks:
            hook.remove()
    return run


def _chained(name: str, lists: dict[str, Any], run: _Run) -> str:
    """The largest list that is called; its items have to be, once each, in order, on the output of the one before.

    A smaller list in its place would be a part of the model that passes for the whole.
    """
    path = next((path for path in lists if run.calls[path]), next(iter(lists)))
    calls = run.calls[path]
    in_order = [index for index, _, _ in calls] == list(range(len(lists[path])))
    if in_order and calls and all(_same(before[2], after[1]) for before, after in itertools.pairwise(calls)):
        return path
    raise ModelError(
        f"{name} does not pass each decoder block's output straight to the next (looked at {path}); it can't be pruned"
    )


def _same(output: Any, hidden: Tensor) -> bool:
    output = hidden_of(output)
    return (
        isinstance(output, Tensor)
        and output.shape == hidden.shape
        and bool(torch.allclose(output, hidden, rtol=0, atol=0, equal_nan=True))
    )


def _check_finite(name: str, calls: list[tuple[int, Tensor, Any]]) -> None:
    for index, _, output in calls:
        if not hidden_of(output).isfinite().all():
            raise ModelError(
                f"block {index} of {name} gives values that are not finite; its weights are damaged, "
                "or overflow where model.dtype=float32 would not"
            )


def _check_present(name: str, path: str, blocks: Any) -> None:
    if any(parameter.is_meta for parameter in blocks.parameters()):
        raise ModelError(f"{name} keeps weights of {path} on disk or offloaded; load it whole before pruning it")


def _check_causal(name: str, blocks: list[Block], outputs: list[Tensor], tokens: int) -> None:
    """The second half of the tokens differs between the two runs; what the blocks make of the first half may not.

    Both runs have the same shapes, so that it is the same to the last bit; but not in a mixture, where other tokens in
    an expert's batch round its products differently.
    """
    dims = [dim for dim, size in enumerate(outputs[0].shape[:-1]) if size == tokens]
    if not dims:
        raise ModelError(f"{name}'s blocks return hidden states of another length than the text's; it can't be pruned")
    past, other = (output.movedim(dims[-1], 0)[: tokens // 2].flatten(1).float() for output in outputs)
    change = (past - other).norm(dim=1) / past.norm(dim=1).clamp_min(1e-30)
    is_mixture = any(layer.stack is not None for block in blocks for layer in block.layers)
    allowed = max(1e-3, 8 * torch.finfo(outputs[0].dtype).eps) if is_mixture else 0.0
    if change.median() > allowed:
        raise ModelError(f"{name} lets tokens see later ones; only causal decoder language models can be pruned")


def _check_shared(name: str, blocks: list[Block]) -> None:
    """Refuse to prune memory that has a second name in the blocks: it would be pruned for one place only."""
    owners: dict[int, list[str]] = {}
    for block in blocks:
        for key, parameter in block.module.named_parameters(remove_duplicate=False):
            owners.setdefault(parameter.data_ptr(), []).append(f"{block.path}.{key}")
    for block in blocks:
        for layer in block.layers:
            names = owners[layer.parameter.data_ptr()]
            if len(names) > 1:
                raise ModelError(
                    f"{name} uses one matrix in several places ({', '.join(names)}), and pruning it for one would "
                    "change the others; leave it out with model.exclude"
                )


def _check_walk(name: str, model: Any, blocks: list[Block], ids: Tensor, wanted: list[Tensor]) -> None:
    """Walk two batches side by side, as pruning does: what a block leaves for a later one would be overwritten."""
    batches = capture(model, blocks, ids, 1)
    for block in blocks:
        with block.loaded():
            for batch in batches:
                batch.run(block)  # as observing does: what changes in place would be changed twice
            advance(block, batches)
    if not all(torch.equal(batch.hidden, output) for batch, output in zip(batches, wanted, strict=True)):
        raise ModelError(
            f"{name}'s blocks give other values one by one than in the model's own forward: "
            "they pass something besides hidden states, or change it in place; it can't be pruned"
        )
