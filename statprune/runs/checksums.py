"""Checksums of what is read again: a digit that a disk or an editor changed must not be believed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from statprune.errors import DamagedError
from statprune.system.files import finite, sha256_of

SEAL = "sha256"  # the key of a JSON object that holds the checksum of all others


def sealed(values: Mapping[str, object]) -> dict[str, object]:
    """A JSON object's plain values, as a file will hold them, with their checksum at the end."""
    plain = _plain({key: value for key, value in values.items() if key != SEAL})
    return plain | {SEAL: _digest(plain)}


def unsealed(values: object, is_required: bool) -> dict[str, object]:
    """The values that ``sealed`` was given.

    Args:
        values: as they were read.
        is_required: a missing checksum is damage, too; otherwise it is that of an older version, which wrote none.

    Raises:
        DamagedError: they are not what was written, in half a sentence.
    """
    if not isinstance(values, Mapping):
        raise DamagedError("it holds no JSON object")
    plain = {key: value for key, value in values.items() if key != SEAL}
    if SEAL not in values:
        if is_required:
            raise DamagedError("its checksum is missing")
    elif values[SEAL] != _digest(plain):
        raise DamagedError("its checksum is not that of its content: it was changed after it had been written")
    return plain


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The checksums of those files that are there, by name.

    Args:
        folder: of the files.
        names: paths below it.
    """
    return {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}


def damage(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """What is wrong with files, half a sentence for each.

    Args:
        folder: of the files.
        expected: their checksums by name, from ``checksums``.
    """
    problems = []
    for name, checksum in expected.items():
        try:
            if sha256_of(folder / name) != checksum:
                problems.append(f"{name} is not what the run wrote")
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except OSError as error:
            problems.append(f"{name} can't be read: {error.strerror}")
    return problems


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """The values as JSON gives them back: with strings for keys."""
    plain: dict[str, object] = json.loads(json.dumps(finite(dict(values)), allow_nan=False))
    return plain


def _digest(plain: Mapping[str, object]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
