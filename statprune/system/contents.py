"""What tells a file from another one under the same path: its size and time, and a hash of what it holds."""

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from statprune.system.files import sha256_of

MIB = 2**20
LARGEST_WHOLE = 256 * MIB  # bytes of a file of weights that is hashed whole unless all bytes are asked for
STRIDE, SAMPLE = MIB, 4096  # of a larger one: so many bytes at the beginning of every stride
HEADER_LENGTH = 8  # bytes that begin a safetensors file and say how long its header is
BLOB = re.compile(r"[0-9a-f]{64}")  # the hub's cache names a file of weights by the SHA-256 of its bytes
_HASHES: dict[tuple[str, int, int, bool], str] = {}  # by path, size, time and whether all bytes were hashed


@dataclass(frozen=True)
class FileIdentity:
    """What a file was when it was read.

    Attributes:
        size: length of the file [bytes].
        mtime_ns: when it was last written, since 1970 [nanoseconds].
        sha256: hash of all bytes; of header and samples where ``is_whole`` is false.
        is_whole: whether the hash is over all bytes.
    """

    size: int
    mtime_ns: int
    sha256: str
    is_whole: bool = True


def identity_of(file: Path, in_full: bool) -> FileIdentity:
    """What a file is now; hashed once by a process while its size and time stay.

    Args:
        file: to look at; links are followed.
        in_full: hash all bytes of however large a file.

    Raises:
        OSError: it can't be read.
    """
    status = file.stat()
    is_whole = in_full or status.st_size <= LARGEST_WHOLE or _blob(file) is not None
    return FileIdentity(status.st_size, status.st_mtime_ns, _hash(file, status, is_whole, in_full), is_whole)


def is_same(file: Path, before: FileIdentity, verify: bool) -> bool:
    """Whether a file holds what it held: its size and time are the same, or else its size and hash.

    Args:
        file: to look at.
        before: what it was.
        verify: compare the hash even where size and time are the same.

    Raises:
        OSError: it can't be read.
    """
    status = file.stat()
    if status.st_size != before.size:
        return False
    if status.st_mtime_ns == before.mtime_ns and not verify:
        return True
    return _hash(file, status, before.is_whole, verify) == before.sha256


def files_at(path: str) -> dict[str, Path]:
    """The files that a path names, by their names below it: one file, those of a folder, or those of a pattern."""
    place = Path(path).expanduser()
    if place.is_file():
        return {place.name: place}
    if place.is_dir():
        return {str(file.relative_to(place)): file for file in sorted(place.rglob("*")) if file.is_file()}
    found = sorted(glob.glob(str(place), recursive=True))
    return {str(file): Path(file) for file in found if Path(file).is_file()}


def key_of(files: Mapping[str, FileIdentity]) -> list[list[object]]:
    """What tells files from others, for a cache: where only samples are hashed, the time counts as well."""
    return [[name, own.size, own.sha256, None if own.is_whole else own.mtime_ns] for name, own in sorted(files.items())]


def _hash(file: Path, status: os.stat_result, is_whole: bool, reads: bool) -> str:
    """The hash of all bytes or of samples; ``reads``: a hash that stands in the file's name is not taken for it."""
    if is_whole and not reads and (named := _blob(file)) is not None:
        return named
    key = (os.path.realpath(file), status.st_size, status.st_mtime_ns, is_whole)
    if key not in _HASHES:
        _HASHES[key] = sha256_of(file) if is_whole else _sampled_hash(file, status.st_size)
    return _HASHES[key]


def _blob(file: Path) -> str | None:
    """The hash that the hub's cache has in the name of the file; None where the file is not of that cache."""
    target = Path(os.path.realpath(file))
    return target.name if target.parent.name == "blobs" and BLOB.fullmatch(target.name) else None


def _sampled_hash(file: Path, size: int) -> str:
    """Of the header and of some bytes of every stride: no tensor of a megabyte or more is passed over."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(HEADER_LENGTH), "little") if file.suffix == ".safetensors" else MIB
        stream.seek(0)
        digest.update(stream.read(min(HEADER_LENGTH + length, size, 64 * MIB)))
        for start in range(0, size, STRIDE):
            stream.seek(start)
            digest.update(stream.read(SAMPLE))
        stream.seek(max(0, size - SAMPLE))
        digest.update(stream.read())
    return digest.hexdigest()
