"""Read blocks from a checkpoint's safetensors files one at a time, and write a new checkpoint the same way."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from statprune.model.offload import Weights, placeholder, size_of
from statprune.model.saved import Checksum, Expected
from statprune.system.files import link_or_copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DiskSource:
    """Weights in a checkpoint's files; changed ones in the shards of a new checkpoint, one for each block.

    Args:
        loader: the checkpoint's tensors by full parameter name, such as accelerate's ``OffloadedWeightsLoader``.
        paths: of the blocks' modules.
        folder: of the new checkpoint.
        revert: gives weights, by full name, the names and shapes that the checkpoint's files have.
        scratch: a folder of converted weights that the loader reads from, removed by ``close``.
    """

    def __init__(
        self,
        loader: Mapping[str, Tensor],
        paths: list[str],
        folder: Path,
        revert: Callable[[Weights], Weights],
        scratch: tempfile.TemporaryDirectory[str],
    ):
        self.folder, self._scratch = folder, scratch
        self._loader, self._paths, self._revert = loader, paths, revert
        self._names = [[name for name in loader if name.startswith(f"{path}.")] for path in paths]
        self._readable: dict[int, Path] = {}  # changed blocks, as the model names and shapes their weights
        self._names_written: dict[int, dict[str, int]] = {}  # bytes by name in each block's shard
        self._checksums: dict[int, dict[str, Checksum]] = {}  # of the same tensors, as they were in memory
        self._dtypes: dict[int, dict[str, torch.dtype]] = {}  # that changed blocks' weights have in memory

    def read(self, index: int) -> Weights:
        """A block's weights on the host, by parameter name within the block."""
        prefix = f"{self._paths[index]}."
        if index in self._readable:
            with safe_open(self._readable[index], "pt") as file:
                dtypes = self._dtypes[index]  # the files may have the dense checkpoint's
                return {name.removeprefix(prefix): file.get_tensor(name).to(dtypes[name], copy=True) for name in dtypes}
        # cloned one by one: they are views of the file's memory map, whose pages are released with them
        return {name.removeprefix(prefix): self._loader[name].clone() for name in self._names[index]}

    def mismatched(self, model: nn.Module) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Tensors with another shape in the files than in the model: (name, the files' shape, the model's)."""
        index = getattr(self._loader, "index", {})
        shapes = {name: tuple(part.shape) for name, part in (*model.named_parameters(), *model.named_buffers())}
        own = {name: shapes[name] for names in self._names for name in names if name in shapes}
        stored = _stored_shapes({name: index[name] for name in own if name in index})
        return {(name, shape, own[name]) for name, shape in stored.items() if shape != own[name]}

    def write(self, index: int, weights: Weights) -> None:
        """Write a block's changed weights to its shard of the new checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {f"{self._paths[index]}.{name}": tensor for name, tensor in weights.items()}
        stored = self._revert(own)
        self._dtypes[index] = {name: own[name].dtype for name in sorted(own)}
        self._checksums[index] = {name: Checksum.of(tensor) for name, tensor in stored.items()}
        for path in self.changed_files(index):
            path.unlink(missing_ok=True)  # another run's checkpoint may hold the same file under another name
        self._readable[index] = self._shard(index)
        save_file({k: v.contiguous() for k, v in stored.items()}, self._shard(index), metadata={"format": "pt"})
        self._names_written[index] = {name: size_of(tensor) for name, tensor in stored.items()}
        if stored.keys() != own.keys():  # a mixture that the model fuses: keep it as the model has it, too
            self._readable[index] = self._fused(index)
            save_file(own, self._readable[index])

    def renames(self, weights: Weights) -> bool:
        """Whether the first block's weights, as the model has them, have other names in a checkpoint's files."""
        own = {f"{self._paths[0]}.{name}": tensor for name, tensor in weights.items()}
        return self._revert(own).keys() != own.keys()

    def changed_files(self, index: int) -> list[Path]:
        """Where a changed block is: its shard; last the file with the model's names and shapes, if that is another."""
        return [path for path in (self._shard(index), self._fused(index)) if path.exists()]

    def adopt(self, index: int, files: Sequence[Path]) -> None:
        """Take a changed block from files that ``changed_files`` named in an earlier process, or copies of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = [self._shard(index), self._fused(index)]
        for path in own:
            path.unlink(missing_ok=True)
        for path, file in zip(own, files, strict=False):
            link_or_copy(file, path)
            self._readable[index] = path
        with safe_open(self._shard(index), "pt") as shard:
            stored = {name: shard.get_tensor(name) for name in sorted(shard.keys())}
            self._names_written[index] = {name: size_of(tensor) for name, tensor in stored.items()}
            self._checksums[index] = {name: Checksum.of(tensor) for name, tensor in stored.items()}
        with safe_open(self._readable[index], "pt") as file:
            self._dtypes[index] = {name: file.get_tensor(name).dtype for name in sorted(file.keys())}

    def finish(self, save_rest: Callable[[Path], None]) -> None:
        """Complete the new checkpoint: unchanged blocks, everything that is not a block, and the index.

        Args:
            save_rest: writes the rest of the model as save_pretrained does, its weights as model.safetensors.
        """
        for index in range(len(self._paths)):
            if index not in self._readable:
                self.write(index, self.read(index))
        save_rest(self.folder)
        with safe_open(self.folder / "model.safetensors", "pt") as file:
            rest = {name: size_of(file.get_tensor(name)) for name in sorted(file.keys())}
        (self.folder / "model.safetensors").rename(self._final(len(self._paths)))
        weight_map = dict.fromkeys(rest, self._final(len(self._paths)).name)
        for index in range(len(self._paths)):
            self._shard(index).rename(self._final(index))
            if self._readable[index] == self._shard(index):
                self._readable[index] = self._final(index)
            weight_map |= dict.fromkeys(self._names_written[index], self._final(index).name)
        total = sum(rest.values()) + sum(sum(names.values()) for names in self._names_written.values())
        index_file = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=2), encoding="utf-8")

    @property
    def names_written(self) -> set[str]:
        """What the model calls the tensors of the blocks' shards."""
        return {name for dtypes in self._dtypes.values() for name in dtypes}

    def written(self) -> Expected:
        """What the blocks' shards have to hold."""
        return {name: own.fits for checksums in self._checksums.values() for name, own in checksums.items()}

    def close(self) -> None:
        """Remove the files that are not part of the new checkpoint; changed blocks can't be read afterwards."""
        for path in self.folder.glob(".*.safetensors"):
            path.unlink()
        self._scratch.cleanup()

    def _shard(self, index: int) -> Path:
        return self.folder / f".block-{index}.safetensors"  # save_pretrained removes files named like shards

    def _fused(self, index: int) -> Path:
        return self.folder / f".fused-{index}.safetensors"

    def _final(self, index: int) -> Path:
        return self.folder / f"model-{index + 1:05d}-of-{len(self._paths) + 1:05d}.safetensors"


def _stored_shapes(index: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, from accelerate's index of offloaded weights: in safetensors files or in files of its own."""
    shapes = {name: tuple(entry["shape"]) for name, entry in index.items() if "shape" in entry}
    files: dict[str, list[str]] = {}
    for name in index.keys() - shapes.keys():
        files.setdefault(index[name]["safetensors_file"], []).append(name)
    for path, names in files.items():
        with safe_open(path, "pt") as file:
            for name in names:
                shapes[name] = tuple(file.get_slice(index[name].get("weight_name", name)).get_shape())
    return shapes


def _read_in_float32(model: "PreTrainedModel", index: Mapping[str, dict[str, Any]]) -> None:
    """Have those tensors read in float32 that the model's class keeps in it, such as a router's biases.

    transformers does so where it opens a model whole, and forgets it of tensors that stay in the checkpoint's files.

    Args:
        model: as opened; the dtypes of its parameters without values are set, too.
        index: of accelerate's loader, which says in which dtype each of those tensors is read.
    """
    from transformers.core_model_loading import build_glob_alternation

    dtype = model.config.dtype
    patterns = list(model._get_dtype_plan(dtype)) if isinstance(dtype, torch.dtype) else []
    if not patterns:
        return
    kept = build_glob_alternation([*patterns])[0]
    parameters = dict(model.named_parameters())
    for name, entry in index.items():
        if kept.search(name) and "dtype" in entry:
            entry["dtype"] = "float32"
            if name in parameters and parameters[name].is_meta:
                parameters[name].data = parameters[name].data.float()


def take_from_disk(
    model: "PreTrainedModel", path: str, folder: Path, scratch: tempfile.TemporaryDirectory[str]
) -> tuple[list[nn.Module], DiskSource]:
    """The blocks of a model that transformers opened with ``path`` on disk, and the source of their weights.

    Args:
        model: its blocks' parameters are empty; accelerate's hooks, which would fill them, are removed.
        path: of the blocks' module list.
        folder: of the new checkpoint.
        scratch: where transformers put weights that it had to convert.
    """
    from accelerate.hooks import remove_hook_from_module
    from transformers.core_model_loading import revert_weight_conversion

    maps = [getattr(module._hf_hook, "weights_map", None) for module in model.modules() if hasattr(module, "_hf_hook")]
    loader = next(weights_map.dataset for weights_map in maps if weights_map is not None)
    _read_in_float32(model, loader.index)
    remove_hook_from_module(model, recurse=True)
    del model.hf_device_map  # or save_pretrained would look for the hooks
    modules = list(model.get_submodule(path).children())
    replacements: dict[int, nn.Parameter] = {}  # shared parameters stay shared
    for module in model.get_submodule(path).modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                empty = nn.Parameter(placeholder(parameter, model.device), requires_grad=False)
                module._parameters[name] = replacements.setdefault(id(parameter), empty)
    paths = [f"{path}.{index}" for index in range(len(modules))]
    source = DiskSource(loader, paths, folder, lambda weights: revert_weight_conversion(model, weights), scratch)
    return modules, source
