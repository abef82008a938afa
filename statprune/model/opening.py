"""What opening a model takes besides transformers: its files' headers, the model without values, blocks on disk."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from statprune.errors import ModelError
from statprune.model.checkpoint import take_from_disk
from statprune.model.offload import Streamer
from statprune.model.opened import LoadingInfo
from statprune.model.stored import StoredCheckpoint, read_stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PretrainedOptions = dict[str, str | bool | None]  # of ``from_pretrained``


def module_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of modules with parameters by path, the largest first: the decoder blocks' is among them."""

    def parameters(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    sizes = {path: parameters(module) for path, module in lists.items()}
    return {path: lists[path] for path in sorted(lists, key=lambda path: -sizes[path]) if sizes[path]}


def stored_in(location: str, config: Mapping[str, object]) -> StoredCheckpoint | None:
    """The tensors that the folder's files hold, by their headers.

    Args:
        location: the folder.
        config: what its config.json holds.
    """
    named = config.get("transformers_weights")
    return read_stored(Path(location), named if isinstance(named, str) else None)


def downloaded(location: str, config: Mapping[str, object], revision: str | None) -> StoredCheckpoint | None:
    """The tensors of a hub repository whose files have come into the cache; None for other models."""
    from transformers.utils import cached_file

    if Path(location).exists():
        return None
    file = cached_file(location, "config.json", revision=revision)
    return stored_in(str(Path(str(file)).parent), config)


def from_pretrained(location: str, options: PretrainedOptions, found: LoadingInfo, **how: object) -> "PreTrainedModel":
    """As transformers' own, with what it finds out on the way.

    Args:
        location: a folder or a hub id.
        options: for the configuration and the model.
        found: is filled.
        how: dtype and placement.
    """
    from transformers import AutoModelForCausalLM

    # shapes that differ are told in our words: without the switch transformers' error names none of them
    opened: Any = AutoModelForCausalLM.from_pretrained(
        location, output_loading_info=True, ignore_mismatched_sizes=True, **options, **how
    )
    model: PreTrainedModel = opened[0]
    found.add(opened[1])
    return model


def _empty(location: str, options: PretrainedOptions) -> "PreTrainedModel":
    """The model without values."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(location, **options)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=options["trust_remote_code"]
        )
    return model


def empty_or_none(location: str, options: PretrainedOptions) -> "PreTrainedModel | None":
    """The model without values; None where it can't be made."""
    try:
        return _empty(location, options)
    except Exception:  # opening it will fail the same way, and its error is told there
        return None


def open_from_disk(
    location: str,
    precision: torch.dtype | str,
    options: PretrainedOptions,
    device: torch.device,
    folder: Path,
    found: LoadingInfo,
) -> tuple["PreTrainedModel", Streamer]:
    """The model with its blocks left in the checkpoint's files, and what brings them to the device."""
    empty = _empty(location, options)
    path = next(iter(module_lists(empty)), None)
    if path is None:
        raise ModelError(f"{type(empty).__name__} has no list of decoder blocks")
    # transformers writes here what it has to convert: mixtures whose experts it fuses
    scratch = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converted-")
    try:
        places = _device_map(empty, path, str(device))
        model = from_pretrained(
            location, options, found, dtype=precision, device_map=places, offload_folder=scratch.name
        )
        modules, source = take_from_disk(model, path, folder, scratch)
        found.mismatched |= source.mismatched(model)
    except BaseException:
        scratch.cleanup()
        raise
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
