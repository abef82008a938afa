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

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import finalize

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.foreign import COMPRESSED
from statprune.model.hub_folder import hub_folder
from statprune.model.loading import LoadedModel, load_model
from statprune.model.location import is_hub_id
from statprune.model.saved import Sizes, shards_of
from statprune.model.stored import FLOATS, read_stored
from statprune.model.tensor_files import LENGTH, PIECE, Part, Place, TensorFile, places_in, write_tensors
from statprune.system.disk import disk_problem, readable
from statprune.system.files import sha256_of, write_json

FORMAT, VERSION = "bitmask", 1
TYPES = {name: dtype for dtype, name in FLOATS.items()}  # by safetensors' name
Shard = Mapping[str, Any]  # what compressed.json says of one dense file


def compress_model(dense: Path, folder: Path) -> Sizes:
    """Write a compressed copy of a saved model; some millions of weights are in memory at a time.

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
    return write_compressed(dense, folder)


def write_compressed(dense: Path, folder: Path) -> Sizes:
    """As ``compress_model``, into an empty folder; what was written is read again, and gives the dense bytes.

    Raises:
        ModelError: what was written does not give the dense bytes.
        OSError: it can't be written.
    """
    shards: dict[str, Shard] = {}
    for number, path in enumerate(shards_of(dense), start=1):
        file = f"compressed-{number:05}.safetensors"
        with TensorFile(path) as source:
            matrices = _compress(source, folder / file)
            shards[path.name] = {"file": file, "matrices": matrices, "sha256": sha256_of(path), "header": source.header}
    _copy_others(dense, folder, {path.name for path in shards_of(dense)})
    write_json(folder / COMPRESSED, {"format": FORMAT, "version": VERSION, "shards": shards})
    check_compressed(folder)
    return sizes_of(folder)


def check_compressed(folder: Path) -> int:
    """Whether a compressed model gives the dense bytes, which are not written; returns how many files it was made from.

    Raises:
        ModelError: it does not, or there is none.
    """
    shards = _manifest(folder)
    for name, shard in shards.items():
        digest = hashlib.sha256()
        for piece in _dense_bytes(folder, shard):
            digest.update(piece)
        if digest.hexdigest() != shard["sha256"]:
            raise _changed(folder, name, shard)
    return len(shards)


def decompress_model(folder: Path | str, dense: Path) -> Sizes:
    """Write the dense folder that a compressed one was made from, bit for bit; some weights are in memory at a time.

    Args:
        folder: the compressed one, or a hub id.
        dense: to write; it must not exist.

    Raises:
        ModelError: there is no compressed model, it is damaged, or the dense folder exists or has no room.
    """
    folder = compressed_folder(folder)
    shards, sizes = _manifest(folder), sizes_of(folder)
    _make(dense)
    if (free := shutil.disk_usage(dense).free) < sizes.dense:
        dense.rmdir()
        raise ModelError(f"{dense} needs {readable(sizes.dense)}, and {readable(free)} are free there; make room")
    for name, shard in shards.items():
        try:
            with (dense / name).open("wb") as file:
                file.writelines(_dense_bytes(folder, shard))
        except OSError as error:
            raise ModelError(disk_problem(error, str(dense)) or f"{dense}: {first_line(error)}") from error
        if sha256_of(dense / name) != shard["sha256"]:
            raise _changed(folder, name, shard)
    _copy_others(folder, dense, {COMPRESSED, *(shard["file"] for shard in shards.values())})
    return sizes


def load_compressed(folder: Path | str, **options: Any) -> LoadedModel:
    """Open a compressed model, by way of a dense copy that is removed with it.

    Args:
        folder: the compressed one, or a hub id.
        **options: of ``load_model``: dtype, device …

    Raises:
        ModelError: there is no compressed model, or it is damaged.

    Examples:
        >>> from pathlib import Path
        >>> from statprune import load_compressed, load_model, prune, save
        >>> loaded = load_model()
        >>> result = prune(loaded, "magnitude", 0.5)
        >>> small = save(loaded, "small", result=result, compressed=True)
        >>> load_compressed("small").source.path
        'small'
    """
    revision = options.pop("revision", None)
    scratch = TemporaryDirectory(prefix="statprune-dense-")
    dense = Path(scratch.name) / "model"
    try:
        decompress_model(compressed_folder(folder, revision), dense)
        loaded = load_model(str(dense), **options)
    except BaseException:
        scratch.cleanup()
        raise
    finalize(loaded.model, scratch.cleanup)
    return replace(loaded, source=replace(loaded.source, path=str(folder), revision=revision))


def compressed_folder(path: Path | str, revision: str | None = None) -> Path:
    """A local folder as it is; of a hub id the folder in the local cache, once its files are there.

    Raises:
        ModelError: the hub has no such model, or can't be reached.
    """
    return hub_folder(str(path), revision=revision) if is_hub_id(str(path)) else Path(path).expanduser()


def is_compressed(folder: Path) -> bool:
    """Whether a folder holds a compressed model."""
    return (folder / COMPRESSED).is_file()


def compressed_readers(folder: Path) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of a compressed model as the dense one has it, by name.

    Raises:
        ModelError: there is no compressed model.
    """
    readers: dict[str, Callable[[], Tensor]] = {}
    for shard in _manifest(folder).values():
        for name, place in places_in(shard["header"]).items():
            readers[name] = lambda place=place, shard=shard: _tensor(folder, shard, place)  # type: ignore[misc]
    return readers


def sizes_of(folder: Path) -> Sizes:
    """Bytes of a compressed folder's tensors, and of those of the dense folder it was made from.

    Raises:
        ModelError: there is no compressed model, or a file of it is missing.
    """
    dense = compressed = matrices = 0
    for shard in _manifest(folder).values():
        path = folder / shard["file"]
        if not path.is_file():
            raise _damaged(path, "it is not there")
        header = shard["header"]
        dense += LENGTH + len(header.encode("utf-8")) + sum(own.size for own in places_in(header).values())
        compressed += path.stat().st_size
        matrices += len(shard["matrices"])
    return Sizes(dense, compressed, matrices)


def _compress(source: TensorFile, target: Path) -> list[str]:
    """Write one file's tensors; returns the names of those that are stored as bits and values."""
    parts, names = [], []
    for name, place in source.places.items():
        split = _split(source, place)
        names += [name] if split else []
        copied = Part(name, place.dtype, place.shape, place.size, lambda place=place: source.pieces(place))  # type: ignore[misc]
        parts += split or [copied]
    write_tensors(target, parts)
    return names


def _split(source: TensorFile, place: Place) -> list[Part]:
    """The bits of a matrix's mask, and the weights that it marks; nothing where they take no less than the matrix.

    Marked is what has a bit set: a negative zero is kept, so that it comes back as it was.
    """
    if len(place.shape) < 2 or place.dtype not in TYPES:
        return []
    width = TYPES[place.dtype].itemsize
    count, bits = sum(int(np.count_nonzero(piece)) for piece in _weights(source, place)), -(-place.size // width // 8)
    if bits + count * width >= place.size:
        return []
    masks = (np.packbits(piece != 0, bitorder="little").tobytes() for piece in _weights(source, place))
    values = (piece[piece != 0].tobytes() for piece in _weights(source, place))
    return [
        Part(f"{place.name}.bitmask", "U8", [bits], bits, lambda: masks),
        Part(f"{place.name}.values", place.dtype, [count], count * width, lambda: values),
    ]


def _weights(source: TensorFile, place: Place) -> Iterator[np.ndarray]:
    """A matrix's weights as unsigned integers of their bits, a piece at a time."""
    width = TYPES[place.dtype].itemsize
    for piece in source.pieces(place, PIECE * width):
        yield np.frombuffer(piece, _bits(place))


def _bits(place: Place) -> str:
    return f"<u{TYPES[place.dtype].itemsize}"


def _dense_bytes(folder: Path, shard: Shard) -> Iterator[bytes]:
    """The bytes of a dense file in their order.

    Raises:
        ModelError: the compressed file can't give them.
    """
    header, path = shard["header"].encode("utf-8"), folder / shard["file"]
    yield len(header).to_bytes(LENGTH, "little") + header
    try:
        with TensorFile(path) as source:
            for name, place in places_in(shard["header"]).items():
                yield from _dense(source, place) if name in shard["matrices"] else source.pieces(source.places[name])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, first_line(error)) from error


def _dense(source: TensorFile, place: Place) -> Iterator[bytes]:
    """A matrix's bytes, with its zeros."""
    mask, values = source.places[f"{place.name}.bitmask"], source.places[f"{place.name}.values"]
    width = TYPES[place.dtype].itemsize
    total, taken = place.size // width, 0
    for first in range(0, total, PIECE):
        count = min(PIECE, total - first)
        bits = np.frombuffer(source.read(mask, first // 8, -(-count // 8)), np.uint8)
        is_set = np.unpackbits(bits, count=count, bitorder="little").view(bool)
        kept = int(np.count_nonzero(is_set))
        piece = np.zeros(count, _bits(place))
        piece[is_set] = np.frombuffer(source.read(values, taken * width, kept * width), _bits(place))
        taken += kept
        yield piece.tobytes()


def _tensor(folder: Path, shard: Shard, place: Place) -> Tensor:
    """One tensor as the dense model has it."""
    path = folder / shard["file"]
    try:
        if place.name not in shard["matrices"]:
            with safe_open(path, "pt") as file:
                tensor: Tensor = file.get_tensor(place.name)
            return tensor
        with TensorFile(path) as source:
            data = bytearray().join(_dense(source, place))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, first_line(error)) from error
    return torch.frombuffer(data, dtype=TYPES[place.dtype]).reshape(place.shape)


def _manifest(folder: Path) -> Mapping[str, Shard]:
    """What ``compressed.json`` says of each dense file."""
    try:
        values = json.loads((folder / COMPRESSED).read_text(encoding="utf-8"))
        known = values["format"] == FORMAT and values["version"] == VERSION
        shards: Mapping[str, Shard] = values["shards"]
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


def _changed(folder: Path, name: str, shard: Shard) -> ModelError:
    return _damaged(folder / shard["file"], f"{name} would not be what was compressed")


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
