"""The bytes of safetensors files: where each tensor lies, read and written a piece at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

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
        values = 1
        for length in self.shape:
            values *= length
        return self.size // max(values, 1)


def places_in(header: str) -> dict[str, Place]:
    """A file's tensors by name, in the order in which they lie there.

    Raises:
        ValueError, KeyError or TypeError: it is no header.
    """
    values = {name: own for name, own in json.loads(header).items() if name != METADATA}
    names = sorted(values, key=lambda name: values[name]["data_offsets"])
    return {name: _place(name, values[name]["data_offsets"], values[name]) for name in names}


def _place(name: str, offsets: Sequence[int], entry: dict[str, object]) -> Place:
    shape = entry["shape"]
    if not isinstance(shape, list):
        raise TypeError(f"{name} has no shape")
    return Place(name, str(entry["dtype"]), tuple(shape), offsets[0], offsets[1] - offsets[0])


class TensorFile:
    """A safetensors file that is read piece by piece; a context manager.

    Args:
        path: of the file.

    Attributes:
        header: its text.
        places: of its tensors, by name.

    Raises:
        OSError: it can't be read.
        ValueError, KeyError or TypeError: it has no whole header.
    """

    def __init__(self, path: Path):
        self._file = path.open("rb")
        try:
            length = int.from_bytes(self._file.read(LENGTH), "little")
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            self.header = self._file.read(length).decode("utf-8")
            self._begin = LENGTH + length
            self.places = places_in(self.header)
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
