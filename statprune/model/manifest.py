"""``compressed.json``: what it says of each dense file, held against the files beside it before anything is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

from statprune.errors import ModelError, first_line
from statprune.model.foreign import COMPRESSED, read_object
from statprune.model.stored import FLOATS, OLD_SHARDED, OLD_WHOLE, SHARDED, WHOLE, named_few
from statprune.model.tensor_files import LENGTH, Place, TensorFile, places_in

FORMAT, VERSION = "bitmask", 1
SUFFIX = ".safetensors"
OWN = f"compressed-*{SUFFIX}"  # what compressed files are called
TYPES = {name: dtype for dtype, name in FLOATS.items()}  # by safetensors' name
LONGEST = 255  # bytes of a file's name


@dataclass(frozen=True)
class Shard:
    """A dense file, and the compressed one that stands for it.

    Attributes:
        name: of the dense file.
        path: of the compressed one.
        matrices: tensors that are stored as bits and values.
        sha256: of the dense file.
        header: the dense file's, as text.
        places: of the dense file's tensors, in their order.
    """

    name: str
    path: Path
    matrices: frozenset[str]
    sha256: str
    header: bytes
    places: Mapping[str, Place]

    @cached_property
    def size(self) -> int:
        """Bytes of the dense file."""
        return LENGTH + len(self.header) + sum(place.size for place in self.places.values())


def read_manifest(folder: Path) -> tuple[Shard, ...]:
    """What a compressed folder was made from, and what stands for it there.

    Every field has its type, every compressed file is whole, and holds what the dense file's header asks for. So what
    is left to go wrong is a value of a tensor, which the SHA-256 of the dense file tells.

    Raises:
        ModelError: there is none; or the file and the field that are damaged.
    """
    path = folder / COMPRESSED
    entries = _entries(path)
    names = frozenset(own.name for own in folder.iterdir() if own.is_file())
    shards: list[Shard] = []
    for name, entry in entries.items():
        try:
            shards.append(_shard(folder, name, entry, names))
        except ValueError as error:
            raise damaged(path, f"{name}: {first_line(error)}") from error
        _hold_against_file(shards[-1])
    if problem := _problem_of_all(folder, shards, names):
        raise damaged(path, problem)
    return tuple(shards)


def damaged(path: Path, reason: str) -> ModelError:
    """That a file of a compressed model can't be used, and why."""
    return ModelError(f"{path} is damaged or not whole ({reason}); copy or compress the model again")


def _entries(path: Path) -> Mapping[str, object]:
    """What is said of each dense file, by its name."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} holds no {COMPRESSED}; give a folder that statprune compress has written"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"it can't be read: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise damaged(path, "it is no object")
    if absent := [key for key in ("format", "version", "shards") if key not in values]:
        raise damaged(path, f"{absent[0]} is missing")
    if values["format"] != FORMAT or values["version"] != VERSION:
        raise ModelError(f"{path.parent} is compressed in a form that this statprune does not know; update statprune")
    shards = values["shards"]
    if not isinstance(shards, dict) or not shards:
        raise damaged(path, "shards names no files" if shards in ({}, []) else "shards is no object")
    return shards


def _shard(folder: Path, name: str, entry: object, names: frozenset[str]) -> Shard:
    """What is said of one dense file.

    Raises:
        ValueError: a field is missing, of another type, or contradicts another one.
    """
    if not _is_file_name(name):
        raise ValueError(f"this key of shards is no name of a {SUFFIX} file")
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    file, sha256, header = (_text(entry, key) for key in ("file", "sha256", "header"))
    if not _is_file_name(file):
        raise ValueError(f"file is {json.dumps(file)}, which is no name of a {SUFFIX} file")
    if file not in names:
        raise damaged(folder / file, "it is not there")
    try:
        places = places_in(header)
    except ValueError as error:
        raise ValueError(f"header can't be used: {first_line(error)}") from error
    matrices = entry.get("matrices")
    if not isinstance(matrices, list) or not all(isinstance(own, str) for own in matrices):
        raise ValueError("matrices is missing or no list of tensors' names")
    if odd := [own for own in matrices if own not in places]:
        raise ValueError(f"matrices names {odd[0]}, which header does not have")
    if len(set(matrices)) != len(matrices):
        raise ValueError("matrices names a tensor twice")
    return Shard(name, folder / file, frozenset(matrices), sha256, header.encode("utf-8"), places)


def _text(entry: Mapping[str, object], key: str) -> str:
    if not isinstance(value := entry.get(key), str):
        raise ValueError(f"{key} is {'no text' if key in entry else 'missing'}")
    return value


def _is_file_name(name: object) -> TypeGuard[str]:
    """Whether it names a visible file of tensors in a folder, and nothing outside of it."""
    if not isinstance(name, str) or not name.endswith(SUFFIX) or name.startswith("."):
        return False
    is_encodable = not any("\ud800" <= sign <= "\udfff" for sign in name)
    return is_encodable and not {"/", "\\", "\0"} & set(name) and len(name.encode("utf-8")) <= LONGEST


def _hold_against_file(shard: Shard) -> None:
    """See whether the compressed file has the tensors that the dense one is made from, and no others.

    Raises:
        ModelError: it has not.
    """
    try:
        with TensorFile(shard.path) as file:
            found = file.places
    except (OSError, ValueError) as error:
        raise damaged(shard.path, first_line(error)) from error
    wanted = set()
    for name, place in shard.places.items():
        parts = (f"{name}.bitmask", f"{name}.values") if name in shard.matrices else (name,)
        wanted |= set(parts)
        if absent := [part for part in parts if part not in found]:
            raise damaged(shard.path, f"{absent[0]} is not there, of which {COMPRESSED} tells")
        problem = _matrix_problem(place, *(found[part] for part in parts)) if len(parts) == 2 else None
        if len(parts) == 1 and (place.dtype, place.shape, place.size) != _kind(found[name]):
            problem = "it has another dtype, shape or size there"
        if problem is not None:
            raise damaged(shard.path, f"{name} is not what the header of {shard.name} in {COMPRESSED} says: {problem}")
    if more := sorted(found.keys() - wanted):
        raise damaged(shard.path, f"{named_few(more)} is not of {shard.name}, as {COMPRESSED} describes it")


def _kind(place: Place) -> tuple[str, tuple[int, ...], int]:
    return place.dtype, place.shape, place.size


def _matrix_problem(place: Place, mask: Place, values: Place) -> str | None:
    """Why bits and values do not stand for a matrix, or None."""
    if place.dtype not in TYPES:
        return f"its dtype is {place.dtype}, of which no matrix is stored as bits and values"
    width = TYPES[place.dtype].itemsize
    if place.size != place.numel * width:
        return "its shape and its bytes differ"
    if _kind(mask) != ("U8", (-(-place.numel // 8),), -(-place.numel // 8)):
        return "its bits are not one for each weight"
    if values.dtype != place.dtype or len(values.shape) != 1 or values.size != values.shape[0] * width:
        return f"its values are not {place.dtype}"
    return None


def _problem_of_all(folder: Path, shards: list[Shard], names: frozenset[str]) -> str | None:
    """What the entries together lack or have too much, or None."""
    files = [shard.path.name for shard in shards]
    if twice := [file for file in files if files.count(file) > 1]:
        return f"{twice[0]} is the file of several"
    if unnamed := sorted(path.name for path in folder.glob(OWN) if path.name not in files):
        return f"it does not name {named_few(unnamed)}, which is beside it"
    if any(shard.name == WHOLE for shard in shards):
        return None
    if SHARDED not in names:
        is_old = OLD_WHOLE in names or OLD_SHARDED in names
        return None if is_old else f"shards does not name {WHOLE}, and no {SHARDED} is beside it"
    weight_map = read_object(folder / SHARDED).get("weight_map")
    if not isinstance(weight_map, dict):
        raise damaged(folder / SHARDED, "weight_map is no object")
    found = {(name, shard.name) for shard in shards for name in shard.places}
    lost = [name for name, file in weight_map.items() if (name, str(file)) not in found]
    return f"shards has no {named_few(sorted(lost))} where {SHARDED} names it" if lost else None
