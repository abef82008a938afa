"""A checkpoint's tensors by name, one at a time: of a dense or compressed folder, of the hub, of a .gguf file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from statprune.errors import ModelError
from statprune.model.compressed import compressed_readers, is_compressed, sizes_of
from statprune.model.foreign import read_object
from statprune.model.hub_folder import hub_folder
from statprune.model.location import locate_model
from statprune.model.source_tensors import tensor_readers
from statprune.model.stored import WHOLE, gguf_damage, read_stored

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
HUB_FILES = ["*.json", "*.safetensors", "*.bin", "README.md"]


@dataclass(frozen=True)
class CheckpointTensors:
    """A checkpoint whose tensors are read when they are asked for.

    Attributes:
        path: as it was given.
        readers: by tensor.
        bytes: of the files of tensors, as they are stored.
        config: what config.json holds; empty where there is none.
        card: the text of README.md; None where there is none.
        unread: names of files of tensors that lie beside the checkpoint's and are no part of it.
    """

    path: str
    readers: Mapping[str, Callable[[], Tensor]] = field(repr=False)
    bytes: int
    config: Mapping[str, object] = field(default_factory=dict, repr=False)
    card: str | None = field(default=None, repr=False)
    unread: tuple[str, ...] = ()


def open_checkpoint(path: str, revision: str | None = None) -> CheckpointTensors:
    """Read the headers of a checkpoint's files.

    Args:
        path: folder, .gguf file, ``pkg://package/file`` or hub id.
        revision: of a hub repository; None: the main branch.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    if not path.strip():
        raise ModelError("the model's name is empty; give a folder, a .gguf file or a hub id")
    location = Path(locate_model(path))
    if location.is_file() and location.suffix == ".gguf":
        return _gguf(path, location)
    if location.is_file():
        raise ModelError(f"{path} is a single file; give the model's folder, a .gguf file or a hub id")
    folder = location if location.is_dir() else hub_folder(path, HUB_FILES, revision)
    config = read_object(folder / "config.json")
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    if is_compressed(folder):
        return CheckpointTensors(path, compressed_readers(folder), sizes_of(folder).compressed, config, text)
    named = config.get("transformers_weights")
    stored = read_stored(folder, named if isinstance(named, str) else None)
    if stored is None:
        raise ModelError(f"{path} has no file of weights, such as {WHOLE}; give the folder of a saved model")
    files = sorted({folder / tensor.file for tensor in stored.tensors.values()})
    readers: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        readers |= {
            name: _dense(name, file, read) for name, read in tensor_readers(file).items() if name in stored.tensors
        }
    size = sum(file.stat().st_size for file in files)
    return CheckpointTensors(path, readers, size, config, text, _unread(folder, files))


def _dense(name: str, file: Path, read: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What reads a tensor with its zeros, where a file made by torch.save has it as a sparse one."""

    def reading() -> Tensor:
        tensor = read()
        if tensor.is_meta:
            raise ModelError(f"{file} has {name} without its values; save the model anew, with all its weights loaded")
        return tensor if tensor.layout == torch.strided else tensor.to_dense()

    return reading


def _unread(folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
    found = {path for pattern in WEIGHT_FILES for path in folder.glob(pattern)}
    return tuple(sorted(path.name for path in found.difference(files)))


def _gguf(path: str, file: Path) -> CheckpointTensors:
    """A .gguf file's tensors, dequantised one at a time, by the names they have there."""
    from gguf import GGMLQuantizationType as Type
    from gguf import GGUFReader
    from gguf.quants import dequantize

    if damage := gguf_damage(file):
        raise ModelError(f"{path} can't be read: {damage}")
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    if not tensors:
        raise ModelError(f"{path} holds no tensors; get it again")

    plain = (Type.I8, Type.I16, Type.I32, Type.I64, Type.F64)  # stored as they are, which dequantize does not know

    def read(name: str) -> Tensor:
        own = tensors[name]
        try:
            values = own.data if own.tensor_type in plain else dequantize(own.data, own.tensor_type)
        except NotImplementedError:
            why = f"the gguf package can't decode {own.tensor_type.name}, which {name} is stored as"
            raise ModelError(f"{path} can't be read: {why}; give another file") from None
        return torch.from_numpy(values.copy()).reshape(tuple(reversed(own.shape.tolist())))

    readers = {name: lambda name=name: read(name) for name in tensors}
    return CheckpointTensors(path, readers, file.stat().st_size)
