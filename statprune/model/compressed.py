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
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from statprune.model.manifest import FORMAT, TYPES, VERSION, Shard, damaged, read_manifest
from statprune.model.saved import Sizes, shards_of
from statprune.model.stored import read_stored
from statprune.model.tensor_files import LENGTH, PIECE, Part, Place, TensorFile, write_tensors
from statprune.system.disk import readable
from statprune.system.files import replacing_folder, sha256_of, write_json


def compress_model(dense: Path, folder: Path) -> Sizes:
    """Write a compressed copy of a saved model; some millions of weights are in memory at a time.

    Args:
        dense: folder with safetensors.
        folder: to write; it must not exist.

    Raises:
        ModelError: there are no such files, they are damaged, or the folder exists or can't be written.
    """
    _refuse_existing(folder)
    if (dense / COMPRESSED).exists():
        raise ModelError(f"{dense} is compressed already; give a dense folder")
    if read_stored(dense) is None or not shards_of(dense):
        raise ModelError(f"{dense} has no .safetensors to compress; save the model with save_pretrained first")
    with _made(folder) as temporary:
        return write_compressed(dense, temporary)


def write_compressed(dense: Path, folder: Path) -> Sizes:
    """As ``compress_model``, into an empty folder; what was written is read again, and gives the dense bytes.

    Raises:
        ModelError: what was written does not give the dense bytes.
        OSError: it can't be written.
    """
    shards: dict[str, object] = {}
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
    shards = read_manifest(folder)
    for shard in shards:
        digest = hashlib.sha256()
        for piece in _dense_bytes(shard):
            digest.update(piece)
        if digest.hexdigest() != shard.sha256:
            raise _changed(shard)
    return len(shards)


def decompress_model(folder: Path | str, dense: Path) -> Sizes:
    """Write the dense folder that a compressed one was made from, bit for bit; some weights are in memory at a time.

    Args:
        folder: the compressed one, or a hub id.
        dense: to write; it must not exist.

    Raises:
        ModelError: there is no compressed model, it is damaged, or the dense folder exists, has no room or can't be
            written. Then nothing is left behind.
    """
    _refuse_existing(dense)  # before anything is downloaded
    folder = compressed_folder(folder)
    shards = read_manifest(folder)
    sizes = _sizes(shards)
    with _made(dense) as temporary:
        if (free := shutil.disk_usage(temporary).free) < sizes.dense:
            raise ModelError(f"{dense} needs {readable(sizes.dense)}, and {readable(free)} are free there; make room")
        for shard in shards:
            with (temporary / shard.name).open("wb") as file:
                file.writelines(_dense_bytes(shard))
            if sha256_of(temporary / shard.name) != shard.sha256:
                raise _changed(shard)
        own = {COMPRESSED, *(name for shard in shards for name in (shard.name, shard.path.name))}
        _copy_others(folder, temporary, own)
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
    for shard in read_manifest(folder):
        for name, place in shard.places.items():
            readers[name] = lambda place=place, shard=shard: _tensor(shard, place)  # type: ignore[misc]
    return readers


def sizes_of(folder: Path) -> Sizes:
    """Bytes of a compressed folder's tensors, and of those of the dense folder it was made from.

    Raises:
        ModelError: there is no compressed model, or a file of it is missing.
    """
    return _sizes(read_manifest(folder))


def _sizes(shards: Sequence[Shard]) -> Sizes:
    dense, compressed = (
        sum(sizes) for sizes in zip(*((own.size, own.path.stat().st_size) for own in shards), strict=True)
    )
    return Sizes(dense, compressed, sum(len(shard.matrices) for shard in shards))


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


def _dense_bytes(shard: Shard) -> Iterator[bytes]:
    """The bytes of a dense file in their order.

    Raises:
        ModelError: the compressed file can't give them.
    """
    yield len(shard.header).to_bytes(LENGTH, "little") + shard.header
    try:
        with TensorFile(shard.path) as source:
            for name, place in shard.places.items():
                yield from _dense(source, place) if name in shard.matrices else source.pieces(source.places[name])
    except (OSError, ValueError) as error:
        raise damaged(shard.path, first_line(error)) from error


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
    if taken * width != values.size:
        raise ValueError(f"{values.name} has other weights than its bits mark")


def _tensor(shard: Shard, place: Place) -> Tensor:
    """One tensor as the dense model has it."""
    try:
        if place.name not in shard.matrices:
            with safe_open(shard.path, "pt") as file:
                tensor: Tensor = file.get_tensor(place.name)
            return tensor
        with TensorFile(shard.path) as source:
            data = bytearray().join(_dense(source, place))
    except (OSError, SafetensorError, ValueError) as error:
        raise damaged(shard.path, first_line(error)) from error
    return torch.frombuffer(data, dtype=TYPES[place.dtype]).reshape(place.shape)


def _changed(shard: Shard) -> ModelError:
    return damaged(shard.path, f"{shard.name} made from it does not have the sha256 that {COMPRESSED} tells")


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise ModelError(f"{folder} exists already; give a folder that does not")


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the one that is to be written, which becomes it once all is written.

    Raises:
        ModelError: the folder exists, or can't be written.
    """
    try:
        with replacing_folder(folder) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ModelError(f"{folder} can't be written ({reason}); make room there, or give another folder") from error


def _copy_others(source: Path, target: Path, without: set[str]) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in without and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
