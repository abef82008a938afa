"""The bytes of safetensors files: where each tensor lies, read and written a piece at a time."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeGuard

LENGTH = 8  # bytes that say how long a file's header is
PIECE = 2**22  # weights, or bytes of what is only copied, that are in memory at a time; a multiple of 8
METADATA = "__metadata__"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file.

    Attributes:
        name: of the tensor.
        dtype: as safetensors calls it: F32, BF16, I32 …
        shape: of the tensor.
        begin: its first byte, counted from the end of the header.
        size: in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def numel(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Part:
    """A tensor that is to be written.

    Attributes:
        name: of the tensor.
        dtype: as safetensors calls it.
        shape: of the tensor.
        size: in bytes.
        pieces: its bytes in order; called once.
    """

    name: str
    dtype: str
    shape: Sequence[int]
    size: int
    pieces: Callable[[], Iterable[bytes]]

    @property
    def width(self) -> int:
        """Bytes of a value."""
        return self.size // max(math.prod(self.shape), 1)


def places_in(header: str) -> dict[str, Place]:
    """A file's tensors by name, in the order in which they lie there.

    Raises:
        ValueError: it is no header, in half a sentence.
    """
    try:
        header.encode("utf-8")
        values = json.loads(header)
    except UnicodeEncodeError:
        raise ValueError("it has signs that are no text") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    places = [_place(name, own) for name, own in values.items() if name != METADATA]
    places.sort(key=lambda place: (place.begin, place.size))
    end = 0
    for place in places:
        if place.begin != end:
            raise ValueError(f"data_offsets of {place.name} do not begin where the tensor before it ends")
        end += place.size
    return {place.name: place for place in places}


def _place(name: str, entry: object) -> Place:
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is no object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str):
        raise ValueError(f"{name} has no dtype")
    if not _are_sizes(shape):
        raise ValueError(f"{name} has no shape of whole numbers")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} has no data_offsets of its first byte and of the one after its last")
    return Place(name, dtype, tuple(shape), offsets[0], offsets[1] - offsets[0])


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


class TensorFile:
    """A safetensors file that is read piece by piece; a context manager.

    Args:
        path: of the file.

    Attributes:
        header: its text.
        places: of its tensors, by name.

    Raises:
        OSError: it can't be read.
        ValueError: it has no whole header, or it is longer or shorter than that says.
    """

    def __init__(self, path: Path):
        self._file = path.open("rb")
        try:
            length, size = int.from_bytes(self._file.read(LENGTH), "little"), path.stat().st_size
            if length > size:
                raise ValueError("its header is longer than the file")
            self.header = self._file.read(length).decode("utf-8")
            self._begin = LENGTH + length
            self.places = places_in(self.header)
            if size != (whole := self._begin + sum(place.size for place in self.places.values())):
                raise ValueError(f"it has {size:,} bytes, and its header tells of {whole:,}")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, place: Place, first: int, size: int) -> bytes:
        """Some bytes of a tensor.

        Args:
            place: of the tensor.
            first: of the bytes, counted from the tensor's.
            size: how many.

        Raises:
            ValueError: the tensor or the file has no such bytes.
        """
        self._file.seek(self._begin + place.begin + first)
        data = self._file.read(size) if first + size <= place.size else b""
        if len(data) != size:
            raise ValueError(f"{place.name} is shorter than it should be")
        return data

    def pieces(self, place: Place, size: int = PIECE) -> Iterator[bytes]:
        """All bytes of a tensor, so many at a time."""
        for first in range(0, place.size, size):
            yield self.read(place, first, min(size, place.size - first))


def write_tensors(path: Path, parts: Iterable[Part]) -> None:
    """Write a file of tensors; the widest values come first, so that every tensor is aligned.

    Raises:
        OSError: it can't be written.
    """
    ordered = sorted(parts, key=lambda part: -part.width)
    entries: dict[str, object] = {METADATA: {"format": "pt"}}
    end = 0
    for part in ordered:
        offsets = [end, end + part.size]
        entries[part.name] = {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": offsets}
        end += part.size
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % LENGTH)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH, "little") + text)
        for part in ordered:
            for piece in part.pieces():
                file.write(piece)
