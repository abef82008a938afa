"""Find a model's decoder blocks and their matrices from what the model does with a few tokens.

Nothing here knows a model family: blocks are the module list that passes hidden states from one item to the next, and
their matrices are the parameters seen to multiply inputs (``products``, ``classify``).
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from statprune.errors import ModelError, first_line
from statprune.model.coverage import coverage_warning, measure_coverage
from statprune.model.lengths import PROBE_TOKENS
from statprune.model.loading import LoadedModel, check_tokens, module_lists, vocabulary_size
from statprune.model.matrix import Block
from statprune.model.offload import Streamer, is_here
from statprune.system.devices import full_float32
from statprune.system.malloc import release_free_memory
from statprune.walk.batches import BlockCall, advance, capture, hidden_of
from statprune.walk.classify import classify, skip_excluded
from statprune.walk.norms import NormOutputs
from statprune.walk.products import Products, Use

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@full_float32()
@torch.inference_mode(False)
@torch.no_grad()
def find_blocks(
    model: "LoadedModel | PreTrainedModel", windows: Tensor, exclude: Sequence[str] = (), prune_routers: bool = False
) -> list[Block]:
    """The decoder blocks in order, each with its prunable matrices and those that are skipped.

    Args:
        model: a causal language model; one whose blocks are streamed has to be a ``LoadedModel``.
        windows: token ids, (windows, seq_len); some tokens of the first window are run.
        exclude: regular expressions; matrices whose full name one of them is found in are skipped.
        prune_routers: prune the matrices that route tokens to experts, too.

    Raises:
        ModelError: the model is not a causal chain of blocks, or an expression names nothing.

    Examples:
        >>> from statprune import calibration_windows, find_blocks, load_model
        >>> loaded = load_model()
        >>> blocks = find_blocks(loaded, calibration_windows(loaded.tokenizer, samples=1, seq_len=64).ids)
        >>> [matrix.name for matrix in blocks[0].matrices][-1]
        'mlp.down_proj'
    """
    streamer = model.streamer if isinstance(model, LoadedModel) else None
    probe = _Probe(model.model if isinstance(model, LoadedModel) else model, streamer)
    probe.check_model(windows)
    with eager_experts(probe.model):
        blocks = probe.find(windows[:1, :PROBE_TOKENS], exclude, prune_routers)
    release_free_memory()  # logits over a large vocabulary
    warning = coverage_warning(measure_coverage(blocks))
    if warning:
        log.warning(warning)
    return blocks


@contextmanager
def eager_experts(model: "PreTrainedModel") -> Iterator[None]:
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


@dataclass(frozen=True)
class _ItemCall:
    """How an item of a module list was called: its number, its input and what it returned."""

    index: int
    hidden: Tensor
    output: object


class _Recorder:
    """A forward hook that takes note of one item's calls."""

    def __init__(self, calls: list[_ItemCall], index: int):
        self._calls, self._index = calls, index

    def __call__(self, _: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], output: object) -> None:
        hidden = BlockCall.of(args, kwargs).hidden
        if hidden is not None:
            self._calls.append(_ItemCall(self._index, hidden, output))


@dataclass
class _Recording:
    """What one forward did: how the items of candidate lists were called, what their norms returned, and the uses.

    Of each parameter, one use is noted.
    """

    norms: NormOutputs
    calls: dict[str, list[_ItemCall]] = field(default_factory=dict)
    uses: dict[str, Use] = field(default_factory=dict)

    def see(self, use: Use) -> None:
        """Take note of a parameter's first use."""
        self.uses.setdefault(use.name, use)

    def last_output(self, path: str) -> Tensor:
        """Hidden states after the last item of a list."""
        hidden = hidden_of(self.calls[path][-1].output)
        assert hidden is not None  # checked when the list was found
        return hidden


@dataclass(frozen=True)
class _Probe:
    """Looks at one model; ``streamer`` brings its blocks to the device."""

    model: "PreTrainedModel"
    streamer: Streamer | None

    @property
    def name(self) -> str:
        return type(self.model).__name__

    def check_model(self, windows: Tensor) -> None:
        """Refuse models that can't be probed."""
        if self.model.training:
            raise ModelError(
                f"{self.name} is in training mode, where dropout changes its values; call model.eval() first"
            )
        check_tokens(self.model, windows)

    def find(self, ids: Tensor, exclude: Sequence[str], prune_routers: bool) -> list[Block]:
        """The blocks, after all checks; ``ids`` is (1, tokens)."""
        lists = module_lists(self.model)
        if not lists:
            raise ModelError(f"{self.name} has no list of decoder blocks; only decoder language models can be pruned")
        recording = self.record(lists, ids)
        path = _chained_list(self.name, lists, recording)
        self._check_present(path, lists[path])
        if self.streamer is not None and list(lists[path]) != self.streamer.modules:
            raise ModelError(
                f"{self.name}'s decoder blocks are {path}, not its largest list of modules; set offload=none"
            )
        _check_finite(self.name, recording.calls[path])
        blocks = self._blocks(path, lists[path], recording, prune_routers)
        other, half = ids.clone(), ids.shape[1] // 2
        other[:, half:] = (other[:, half:] + 1) % vocabulary_size(self.model)
        other_recording = self.record({path: lists[path]}, other)
        outputs = [recording.last_output(path), other_recording.last_output(path)]
        _check_causal(self.name, blocks, outputs, ids.shape[1])
        blocks = skip_excluded(blocks, exclude)
        _check_shared(self.name, blocks)
        self._check_walk(blocks, torch.cat([ids, other]), outputs)
        return blocks

    def record(self, lists: Mapping[str, nn.ModuleList], ids: Tensor) -> _Recording:
        """Run ``ids`` and note how the items of the lists are called, and which matrices multiply what."""
        named = {f"{path}.{index}": item for path, items in lists.items() for index, item in enumerate(items)}
        recording = _Recording(NormOutputs(named), {path: [] for path in lists})
        hooks = recording.norms.hooks + [
            item.register_forward_hook(_Recorder(recording.calls[path], index), with_kwargs=True)
            for path, items in lists.items()
            for index, item in enumerate(items)
        ]
        products = Products(self.model, recording.see)
        listeners = self.streamer.on_load if self.streamer is not None else []
        listeners.append(products.refresh)
        try:
            with products:
                self.model(input_ids=ids.to(self.model.device), use_cache=False)
        except ModelError:
            raise
        except Exception as error:  # a model of another kind fails in its own way
            raise ModelError(
                f"{self.name} can't run on token ids alone ({type(error).__name__}: {first_line(error)}); "
                "only decoder language models can be pruned"
            ) from error
        finally:
            listeners.remove(products.refresh)
            for hook in hooks:
                hook.remove()
        return recording

    def _blocks(self, path: str, modules: nn.ModuleList, recording: _Recording, prune_routers: bool) -> list[Block]:
        blocks = []
        for index, module in enumerate(modules):
            output = recording.calls[path][index].output
            extra_outputs = tuple(output[1:]) if isinstance(output, tuple | list) else None
            prefix = f"{path}.{index}"
            found = classify(module, prefix, recording.uses, recording.norms.of(prefix), prune_routers)
            blocks.append(Block(index, prefix, module, found.prunable, found.skipped, extra_outputs, self.streamer))
        if not any(block.matrices for block in blocks):
            raise ModelError(
                f"{self.name}'s blocks multiply their inputs by no parameter of theirs; nothing can be pruned"
            )
        return blocks

    def _check_present(self, path: str, modules: nn.ModuleList) -> None:
        if any(parameter.is_meta for parameter in modules.parameters()):
            raise ModelError(
                f"{self.name} keeps weights of {path} on disk or offloaded; load it whole before pruning it"
            )
        if self.streamer is None and not all(map(is_here, modules.parameters())):
            raise ModelError(f"the blocks of {self.name} are streamed; give the LoadedModel in place of its model")

    def _check_walk(self, blocks: list[Block], ids: Tensor, expected: list[Tensor]) -> None:
        """Walk two batches side by side, as pruning does: what a block leaves for a later one would be overwritten."""
        batches = capture(self.model, blocks, ids, 1)
        for block in blocks:
            with block.loaded():
                for batch in batches:
                    batch.run(block)  # as observing does: in-place changes would happen twice
                advance(block, batches)
        if not all(torch.equal(batch.hidden, output) for batch, output in zip(batches, expected, strict=True)):
            raise ModelError(
                f"{self.name}'s blocks give other values one by one than in the model's own forward: "
                "they pass something besides hidden states, or change it in place; it can't be pruned"
            )


def _chained_list(name: str, lists: Mapping[str, nn.ModuleList], recording: _Recording) -> str:
    """Path of the largest list that is called.

    Its items have to be called once each, in order, on the output of the one before. A smaller list in its place would
    be a part of the model that passes for the whole.
    """
    path = next((path for path in lists if recording.calls[path]), next(iter(lists)))
    calls = recording.calls[path]
    is_in_order = [call.index for call in calls] == list(range(len(lists[path])))
    is_chain = all(_is_same(before.output, after.hidden) for before, after in itertools.pairwise(calls))
    if calls and is_in_order and is_chain and hidden_of(calls[-1].output) is not None:
        return path
    raise ModelError(
        f"{name} does not pass each decoder block's output straight to the next (looked at {path}); it can't be pruned"
    )


def _is_same(output: object, hidden: Tensor) -> bool:
    """Whether a block's output holds these very hidden states."""
    own = hidden_of(output)
    return (
        own is not None
        and own.shape == hidden.shape
        and bool(torch.allclose(own, hidden, rtol=0, atol=0, equal_nan=True))
    )


def _check_finite(name: str, calls: Sequence[_ItemCall]) -> None:
    for call in calls:
        hidden = hidden_of(call.output)
        if hidden is not None and not hidden.isfinite().all():
            raise ModelError(
                f"block {call.index} of {name} gives values that are not finite; its weights are damaged, "
                "or overflow where model.dtype=float32 would not"
            )


def _check_causal(name: str, blocks: Sequence[Block], outputs: Sequence[Tensor], tokens: int) -> None:
    """Two runs differ in the second half of their tokens; the blocks must make the same of the first half.

    Both runs have the same shapes, so that it is the same to the last bit; but not in a mixture, where other tokens in
    an expert's batch round its products differently.
    """
    dims = [dim for dim, size in enumerate(outputs[0].shape[:-1]) if size == tokens]
    if not dims:
        raise ModelError(f"{name}'s blocks return hidden states of another length than the text's; it can't be pruned")
    past, other = (output.movedim(dims[-1], 0)[: tokens // 2].flatten(1).float() for output in outputs)
    change = (past - other).norm(dim=1) / past.norm(dim=1).clamp_min(1e-30)
    is_mixture = any(matrix.stack is not None for block in blocks for matrix in block.matrices)
    allowed = max(1e-3, 8 * torch.finfo(outputs[0].dtype).eps) if is_mixture else 0.0
    if change.median() > allowed:
        raise ModelError(f"{name} lets tokens see later ones; only causal decoder language models can be pruned")


def _check_shared(name: str, blocks: Sequence[Block]) -> None:
    """Refuse to prune memory that has a second name in the blocks: it would be pruned for one place only."""
    owners: dict[int, list[str]] = {}
    for block in blocks:
        for key, parameter in block.module.named_parameters(remove_duplicate=False):
            owners.setdefault(parameter.data_ptr(), []).append(f"{block.path}.{key}")
    for block in blocks:
        for matrix in block.matrices:
            names = owners[matrix.parameter.data_ptr()]
            if len(names) > 1:
                raise ModelError(
                    f"{name} uses one matrix in several places ({', '.join(names)}), and pruning it for one would "
                    "change the others; leave it out with model.exclude"
                )
