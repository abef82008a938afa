"""A saved model's files, tensor by tensor: each in the checkpoint's own dtype, and compared with the memory."""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from statprune.errors import ModelError
from statprune.model.source_tensors import SourceTensors
from statprune.system.files import sha256_of

Expected = Mapping[str, Callable[[Tensor], bool]]  # by name: whether a stored tensor is the one in memory
CHUNK = 2**24


@dataclass(frozen=True)
class Sizes:
    """Bytes of the files of tensors.

    Attributes:
        dense: of the dense folder.
        compressed: of the compressed one.
        matrices: how many tensors are stored as bits and values.
    """

    dense: int
    compressed: int
    matrices: int

    @property
    def ratio(self) -> float:
        """What the compressed files take of the dense ones' bytes."""
        return self.compressed / max(self.dense, 1)


@dataclass(frozen=True)
class SavedModel:
    """A model that was saved, and opened again to compare it with the memory.

    Attributes:
        tensors: how many were compared, all of them [tensors].
        bytes: size of the tensors [bytes].
        own_dtype: how many have the dtype of the checkpoint that was pruned, since the memory has another [tensors].
        shards: sha256 of each file of tensors, by the file's name; of a compressed model also of its compressed.json.
        compressed: what the files take both ways; None: the model was saved dense.
    """

    tensors: int
    bytes: int
    own_dtype: int = 0
    shards: dict[str, str] = field(default_factory=dict)
    compressed: Sizes | None = None


def shards_of(folder: Path) -> list[Path]:
    """The files of tensors in a saved model's folder."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def restore_dtypes(folder: Path, source: SourceTensors) -> int:
    """Rewrite tensors whose dtype in the checkpoint is another one; returns how many.

    A tensor that the checkpoint has with the same values is written with the checkpoint's own bytes; one that was
    pruned is stored in the checkpoint's dtype where that holds every value exactly, and else as it is.
    """
    changed = 0
    for path in shards_of(folder):
        with safe_open(path, "pt") as file:
            names, metadata = sorted(file.keys()), file.metadata()
            own = {
                name: tensor for name in names if (tensor := _own(file.get_tensor(name), source.get(name))) is not None
            }
            if not own:
                continue
            tensors = {name: own[name] if name in own else file.get_tensor(name) for name in names}
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                save_file(tensors, temporary, metadata=metadata)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        changed += len(own)
    index = folder / "model.safetensors.index.json"
    if changed and index.exists():
        values = json.loads(index.read_text(encoding="utf-8"))
        values["metadata"]["total_size"] = sum(_tensor_bytes(path) for path in shards_of(folder))
        index.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return changed


def _tensor_bytes(path: Path) -> int:
    """Bytes of a file's tensors: what follows the header."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def check_saved(folder: Path, expected: Expected) -> SavedModel:
    """Compare each tensor of the folder's files with what it has to be; one at a time is in memory.

    Args:
        folder: of the saved model.
        expected: tells of each tensor whether it is the right one; of those that share their memory one is there.

    Raises:
        ModelError: a tensor differs, is missing, or is one too many.
    """
    count = total = 0
    missing = dict(expected)
    for path in shards_of(folder):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                if name not in missing:
                    raise ModelError(f"{path} holds the tensor {name}, which the model in memory does not have")
                tensor = file.get_tensor(name)
                if not missing.pop(name)(tensor):
                    raise ModelError(f"the tensor {name} in {path} is not the one in memory")
                count, total = count + 1, total + tensor.numel() * tensor.element_size()
    if missing:
        raise ModelError(f"{folder} lacks the tensor {next(iter(missing))} of the model in memory")
    return SavedModel(count, total, shards={path.name: sha256_of(path) for path in shards_of(folder)})


def expect(tensors: Mapping[str, Tensor]) -> Expected:
    """What the files have to hold where the tensors are in memory."""
    return {name: lambda stored, tensor=tensor: is_same(stored, tensor) for name, tensor in tensors.items()}  # type: ignore[misc]


@dataclass(frozen=True)
class Checksum:
    """A tensor that was written and is no longer in memory.

    Attributes:
        shape: of the tensor.
        dtype: that it had in memory.
        crc: of its bytes.
    """

    shape: torch.Size
    dtype: torch.dtype
    crc: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Checksum":
        """Of a tensor in memory."""
        crc = 0
        for piece in _pieces(tensor):
            crc = zlib.crc32(_bits(piece.cpu()).numpy().data, crc)
        return cls(tensor.shape, tensor.dtype, crc)

    def fits(self, stored: Tensor) -> bool:
        """Whether a stored tensor is that one."""
        return stored.shape == self.shape and Checksum.of(stored.to(self.dtype)) == self


def is_same(stored: Tensor, memory: Tensor) -> bool:
    """Whether a stored tensor has the bits of the memory's once it is cast to the memory's dtype."""
    if stored.shape != memory.shape:
        return False
    pairs = zip(_pieces(stored), _pieces(memory), strict=True)
    return all(torch.equal(_bits(own.to(other.dtype)), _bits(other.cpu())) for own, other in pairs)


def _own(stored: Tensor, source: Tensor | None) -> Tensor | None:
    """What is to be stored in place of a tensor; None: it stays."""
    if source is None or source.dtype == stored.dtype or source.shape != stored.shape:
        return None
    if not (source.is_floating_point() and stored.is_floating_point()):
        return None
    if is_same(source, stored):
        return source.contiguous()
    widened = stored.to(source.dtype)
    return widened if is_same(widened, stored) else None


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    return iter(tensor.detach().reshape(-1).split(CHUNK))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
