"""Checkpoints whose sparse matrices are stored as a bit for every weight and the weights that are not zero.

A compressed folder has ``compressed.json``, one ``compressed-….safetensors`` for each file of tensors that the dense
folder had, and its other files as they were. Of a matrix NAME that is smaller so, the file holds

    NAME.bitmask   uint8, ⌈weights / 8⌉: bit i % 8 of byte i // 8, the least significant first, is 1 where weight i of
                   the matrix, row after row, has any bit set
    NAME.values    those weights, in their order and in their own dtype

and every other tensor as it was. At 50% in bfloat16 that is (16 · 0.5 + 1) / 16 = 9/16 of the dense bytes. 2:4 takes
the same: two 2-bit indices for four weights are four bits, as the bits of the mask are. ``compressed.json`` has the
header of every dense file, so that what is decompressed has its very bytes, and their SHA-256, which is checked.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from weakref import finalize

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.foreign import COMPRESSED
from statprune.model.loading import LoadedModel, load_model
from statprune.model.saved import shards_of
from statprune.model.stored import FLOATS, read_stored
from statprune.system.files import sha256_of, write_json

FORMAT, VERSION = "bitmask", 1
BITS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}  # as wide as a weight, by its bytes
LENGTH = 8  # bytes that say how long a safetensors file's header is


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


def compress_model(dense: Path, folder: Path) -> Sizes:
    """Write a compressed copy of a saved model; one of its files, compressed, is in memory at a time.

    Args:
        dense: folder with safetensors.
        folder: to write; it must not exist.

    Raises:
        ModelError: there are no such files, they are damaged, or the folder exists.
    """
    if (dense / COMPRESSED).exists():
        raise ModelError(f"{dense} is compressed already; give a dense folder")
    if read_stored(dense) is None or not shards_of(dense):
        raise ModelError(f"{dense} has no .safetensors to compress; save the model with save_pretrained first")
    _make(folder)
    shards: dict[str, Any] = {}
    for number, path in enumerate(shards_of(dense), start=1):
        file = f"compressed-{number:05}.safetensors"
        names = _compress(path, folder / file)
        header = _header(path).decode("utf-8")
        shards[path.name] = {"file": file, "matrices": names, "sha256": sha256_of(path), "header": header}
    _copy_others(dense, folder, {path.name for path in shards_of(dense)})
    write_json(folder / COMPRESSED, {"format": FORMAT, "version": VERSION, "shards": shards})
    return sizes_of(folder)


def decompress_model(folder: Path, dense: Path) -> Sizes:
    """Write the dense folder that a compressed one was made from, bit for bit; a tensor is in memory at a time.

    Args:
        folder: the compressed one.
        dense: to write; it must not exist.

    Raises:
        ModelError: there is no compressed model, it is damaged, or the dense folder exists.
    """
    shards = _manifest(folder)
    _make(dense)
    for name, shard in shards.items():
        try:
            with (dense / name).open("wb") as file:
                _decompress(folder / shard["file"], shard, file)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise _damaged(folder / shard["file"], first_line(error)) from error
        if sha256_of(dense / name) != shard["sha256"]:
            raise _damaged(folder / shard["file"], f"{name} would not be what was compressed")
    _copy_others(folder, dense, {COMPRESSED, *(shard["file"] for shard in shards.values())})
    return sizes_of(folder)


def load_compressed(folder: Path | str, **options: Any) -> LoadedModel:
    """Open a compressed model, by way of a dense copy that is removed with it.

    Args:
        folder: the compressed one.
        **options: of ``load_model``: dtype, device …

    Raises:
        ModelError: there is no compressed model, or it is damaged.

    Examples:
        >>> from pathlib import Path
        >>> from statprune import load_compressed, load_model, prune, save_model
        >>> from statprune.model.compressed import compress_model
        >>> loaded = load_model()
        >>> result = prune(loaded, "magnitude", 0.5)
        >>> saved = save_model(loaded, Path("dense"))
        >>> sizes = compress_model(Path("dense"), Path("small"))
        >>> load_compressed("small").source.path
        'small'
    """
    scratch = TemporaryDirectory(prefix="statprune-dense-")
    dense = Path(scratch.name) / "model"
    try:
        decompress_model(Path(folder), dense)
        loaded = load_model(str(dense), **options)
    except BaseException:
        scratch.cleanup()
        raise
    finalize(loaded.model, scratch.cleanup)
    return replace(loaded, source=replace(loaded.source, path=str(folder)))


def sizes_of(folder: Path) -> Sizes:
    """Bytes of a compressed folder's tensors, and of those of the dense folder it was made from."""
    shards = _manifest(folder)
    dense = sum(_dense_bytes(shard["header"]) for shard in shards.values())
    matrices = sum(len(shard["matrices"]) for shard in shards.values())
    return Sizes(dense, sum((folder / shard["file"]).stat().st_size for shard in shards.values()), matrices)


def _compress(path: Path, target: Path) -> list[str]:
    """Write one file's tensors; returns the names of those that are stored as bits and values."""
    tensors: dict[str, Tensor] = {}
    names = []
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            tensor = file.get_tensor(name)
            parts = _parts(tensor) if tensor.ndim > 1 and tensor.dtype in FLOATS else None
            if parts is None:
                tensors[name] = tensor
            else:
                names.append(name)
                tensors[f"{name}.bitmask"], tensors[f"{name}.values"] = parts
    save_file(tensors, target, metadata={"format": "pt"})
    return names


def _parts(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The mask's bits, and the weights that it marks; None where they take no less than the tensor.

    Marked is what has a bit set: a negative zero is kept, so that it comes back as it was.
    """
    bits = tensor.reshape(-1).view(BITS[tensor.element_size()]).numpy()
    is_set = bits != 0
    mask = np.packbits(is_set, bitorder="little")
    if mask.nbytes + int(is_set.sum()) * tensor.element_size() >= bits.nbytes:
        return None
    return torch.from_numpy(mask), torch.from_numpy(bits[is_set]).view(tensor.dtype)


def _decompress(path: Path, shard: Mapping[str, Any], target: BinaryIO) -> None:
    header = shard["header"].encode("utf-8")
    target.write(len(header).to_bytes(LENGTH, "little") + header)
    matrices = set(shard["matrices"])
    with safe_open(path, "pt") as file:
        for name, size in _tensors(shard["header"]):
            if name not in matrices:
                target.write(file.get_tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy().data)
                continue
            values = file.get_tensor(f"{name}.values")
            count = size // values.element_size()
            mask = np.unpackbits(file.get_tensor(f"{name}.bitmask").numpy(), count=count, bitorder="little")
            bits = torch.zeros(count, dtype=BITS[values.element_size()]).numpy()
            bits[mask.astype(bool)] = values.view(BITS[values.element_size()]).numpy()
            target.write(bits.data)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(LENGTH), "little"))


def _tensors(header: str) -> Iterator[tuple[str, int]]:
    """Names and bytes of a file's tensors, in the order in which they lie there."""
    values: Mapping[str, Any] = json.loads(header)
    places = {name: own["data_offsets"] for name, own in values.items() if name != "__metadata__"}
    for name in sorted(places, key=lambda name: places[name]):
        yield name, places[name][1] - places[name][0]


def _dense_bytes(header: str) -> int:
    return LENGTH + len(header.encode("utf-8")) + sum(size for _, size in _tensors(header))


def _manifest(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What ``compressed.json`` says of each dense file."""
    try:
        values = json.loads((folder / COMPRESSED).read_text(encoding="utf-8"))
        known = values["format"] == FORMAT and values["version"] == VERSION
        shards: Mapping[str, Mapping[str, Any]] = values["shards"]
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {COMPRESSED}; give a folder that statprune compress has written") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / COMPRESSED, f"{type(error).__name__}: {first_line(error)}") from error
    if not known:
        raise ModelError(f"{folder} is compressed in a form that this statprune does not know; update statprune")
    if bad := [
        name for name in shards if Path(name).name != name or Path(shards[name]["file"]).name != shards[name]["file"]
    ]:
        raise _damaged(folder / COMPRESSED, f"{bad[0]} is no file's name")
    return shards


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is damaged or not whole ({reason}); copy or compress the model again")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ModelError(f"{folder} exists already; give a folder that does not") from None
    except OSError as error:
        raise ModelError(f"{folder} can't be made ({error.strerror}); give another one") from error


def _copy_others(source: Path, target: Path, without: set[str]) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in without and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
