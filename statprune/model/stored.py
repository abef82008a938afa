"""What a checkpoint's files hold, by their headers: names, shapes and dtypes of tensors, without their values."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from statprune.errors import ModelError, first_line

WHOLE, SHARDED = "model.safetensors", "model.safetensors.index.json"
OLD_WHOLE, OLD_SHARDED = "pytorch_model.bin", "pytorch_model.bin.index.json"
GIT_POINTER = b"version https://git-lfs"
FLOATS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        shape: as it is stored.
        dtype: as safetensors calls it: F32, BF16, I32, F8_E4M3 …
        file: that holds it.
    """

    shape: tuple[int, ...]
    dtype: str
    file: str

    @property
    def holds_floats(self) -> bool:
        """Whether the values are plain floating-point numbers, not codes of another tool."""
        return self.dtype in FLOATS.values()

    @property
    def numel(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class StoredCheckpoint:
    """All tensors of a checkpoint.

    Attributes:
        tensors: by name, as the files have them.
    """

    tensors: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        """How many values the tensors have."""
        return sum(tensor.numel for tensor in self.tensors.values())

    @property
    def longest(self) -> int:
        """The largest dimension of any tensor."""
        return max((size for tensor in self.tensors.values() for size in tensor.shape), default=0)


def read_stored(folder: Path, named: str | None = None) -> StoredCheckpoint | None:
    """What the files hold that transformers would open; None where it would find none here.

    Args:
        folder: of the model.
        named: the file that the model's config.json names, for want of one called as usual.

    Raises:
        ModelError: a file is damaged, truncated or missing, or they contradict each other.
    """
    names = (WHOLE, SHARDED, OLD_WHOLE, OLD_SHARDED) if named is None else (named,)
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        return None
    if name.endswith(".index.json"):
        return _sharded(folder / name)
    tensors = _headers(folder / name)
    if not tensors:
        raise ModelError(f"{folder / name} holds no tensors; get it again")
    return StoredCheckpoint(tensors)


def gguf_damage(path: Path) -> str | None:
    """Why a .gguf file can't be read as one, in a sentence, or None; reads no more than its header."""
    from gguf import GGUFReader

    try:
        GGUFReader(path)
    except Exception as error:  # a file that is cut off ends in almost any error type
        return _damaged(path, f"{type(error).__name__}: {first_line(error)}")
    return None


def _sharded(index: Path) -> StoredCheckpoint:
    files = _weight_map(index)
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(files.values())):
        path = index.parent / file
        if not path.is_file():
            lost = [name for name, own in files.items() if own == file]
            raise ModelError(
                f"{index} names {file} for {named_few(lost)}, and that file is not there; copy or download it, too"
            )
        held = _headers(path)
        if twice := sorted(held.keys() & tensors.keys()):
            raise ModelError(
                f"{path} and {tensors[twice[0]].file} both hold {named_few(twice)}, and which of them counts is open; "
                "save the model anew"
            )
        tensors |= held
    absent = sorted(name for name, file in files.items() if name not in tensors or tensors[name].file != file)
    if absent:
        raise ModelError(f"{index} names tensors that its files don't hold: {named_few(absent)}; get the whole model")
    return StoredCheckpoint(tensors)


def _weight_map(index: Path) -> dict[str, str]:
    """Files by tensor."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"{index} can't be read ({reason}); get it again") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ModelError(f"{index} has no weight_map that gives a file's name for each tensor; get it again")
    if not files:
        raise ModelError(f"{index} has a weight_map that names no tensor; get it again")
    return files


def _headers(path: Path) -> dict[str, StoredTensor]:
    try:
        return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except ModelError:
        raise
    except (SafetensorError, OSError) as error:
        reason = first_line(error)
    except Exception as error:  # torch.load of a damaged file ends in almost any error type
        reason = f"{type(error).__name__}: {first_line(error)}"
    raise ModelError(_damaged(path, reason))


def _damaged(path: Path, reason: str) -> str:
    with path.open("rb") as file:
        if file.read(len(GIT_POINTER)) == GIT_POINTER:
            reason = "it is Git LFS's pointer to the file: run git lfs pull"
    return f"{path} is damaged or not whole ({reason}); copy or download it again"


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    with safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return {
            name: StoredTensor(tuple(part.get_shape()), part.get_dtype(), path.name) for name, part in parts.items()
        }


def _pickled(path: Path) -> dict[str, StoredTensor]:
    values = load_pickled(path, "meta")
    tensors = {
        name: StoredTensor(tuple(value.shape), FLOATS.get(value.dtype, str(value.dtype)), path.name)
        for name, value in (values.items() if isinstance(values, dict) else ())
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if values and not tensors:
        held = named_few([str(name) for name in values]) if isinstance(values, dict) else f"a {type(values).__name__}"
        raise ModelError(f"{path} holds no tensors by name, but {held}; save the model's state_dict() alone")
    return tensors


def load_pickled(path: Path, device: str = "cpu") -> Mapping[str, torch.Tensor]:
    """What a pickled file of weights holds; values of a zip, as torch has written since 1.6, stay on disk until used.

    Args:
        path: of the file.
        device: ``meta`` for shapes and dtypes without values.
    """
    # an older file has no parts that can be mapped: torch.load refuses to, and its values are all in memory
    loaded: Mapping[str, torch.Tensor] = torch.load(
        path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path)
    )
    return loaded


def named_few(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
