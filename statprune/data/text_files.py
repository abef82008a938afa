"""Files of text: those that a path, a folder or a glob leads to, what kind each is, and how it is opened."""

import bz2
import glob
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from statprune.errors import DataError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PROSE = ("", ".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".raw", ".tokens", ".log")
READABLE = "plain text (.txt, .md) or a table (.jsonl, .json, .csv, .tsv, .parquet), also as .gz, .bz2, .xz or .zst"
FIRST_LINES = 3  # that tell whether plain text is JSON lines


def _zstandard(file: Path) -> BinaryIO:
    import pyarrow

    if not pyarrow.Codec.is_available("zstd"):
        raise DataError(f"{file} can't be decompressed (this pyarrow has no Zstandard); `pip install -U pyarrow`")
    return cast(BinaryIO, io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd")))


OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": lambda file: cast(BinaryIO, gzip.GzipFile(file)),
    ".bz2": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    ".xz": lambda file: cast(BinaryIO, lzma.LZMAFile(file)),  # noqa: SIM115  # whoever reads it closes it
    ".zst": _zstandard,
    ".zstd": _zstandard,
}
DAMAGES = (OSError, EOFError, lzma.LZMAError)  # of the openers


def files_of(path: str) -> list[Path]:
    """The files that a path leads to, in the order in which they are read.

    A file is itself; a folder leads to all files below it, and a pattern (``data/*.jsonl``) to the files that fit it,
    both sorted by name. Files and folders whose names begin with a dot are left out.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        below = (file for file in place.rglob("*") if file.is_file())
        return sorted(file for file in below if not any(part.startswith(".") for part in file.relative_to(place).parts))
    if not glob.has_magic(path):
        return []
    return sorted(file for name in glob.glob(str(place), recursive=True) if (file := Path(name)).is_file())


def kind_of(file: Path) -> str:
    """A file's suffix in small letters, without that of a compression: ``.jsonl`` for ``a.JSONL.gz``."""
    name = Path(file.stem) if file.suffix.lower() in OPENERS else file
    return name.suffix.lower()


def checked_files(path: str, key: str) -> list[Path]:
    """The files that a path leads to, all plain text or all tables.

    Args:
        path: of a file or folder, or a pattern.
        key: that holds it, for the sentences.

    Raises:
        DataError: there are none, or they can't be read together.
    """
    files = files_of(path)
    if not files:
        raise DataError(f"{key}={path} is no file; give {READABLE}, a folder of such files, or a pattern in quotes")
    for file in files:
        if kind_of(file) not in (*TABLES, *PROSE):
            where = f"{key}={path} is" if len(files) == 1 else f"{file}, which {key}={path} leads to, is"
            raise DataError(
                f"{where} of a kind that is not read ({kind_of(file)}); give {READABLE}, or copy what is prose to "
                "a .txt file"
            )
    prose = [file for file in files if kind_of(file) in PROSE]
    if prose and len(prose) < len(files):
        table = next(file for file in files if file not in prose)
        raise DataError(
            f"{key}={path} leads to plain text ({prose[0].name}) and to tables ({table.name}); give a pattern that "
            f"leads to one kind, such as {key}='{Path(path) / ('*' + table.suffix)}'"
        )
    return files


def opened(file: Path) -> BinaryIO:
    """A file's bytes, decompressed."""
    opener = OPENERS.get(file.suffix.lower())
    return opener(file) if opener is not None else file.open("rb")


def damage(file: Path, error: Exception, remedy: str) -> DataError:
    """What to raise where a file can't be opened or decoded."""
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8 text"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = f"it is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return DataError(f"{file} can't be read ({reason}); {remedy}")


def read_prose(files: Sequence[Path], key: str) -> list[str]:
    """The texts of plain text files.

    Args:
        files: to read.
        key: that leads to them, for the sentences.

    Raises:
        DataError: one can't be read or is no prose, or all are empty.
    """
    texts = []
    for file in files:
        try:
            with opened(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as text:
                texts.append(text.read())
        except (*DAMAGES, UnicodeDecodeError) as error:
            raise damage(file, error, f"give {key} another UTF-8 text file") from error
        if "\0" in texts[-1]:
            raise DataError(f"{file} holds zero bytes and is no text; give {key} another UTF-8 text file")
        if _holds_json_lines(texts[-1]):
            raise DataError(f"{file} holds JSON lines, not prose; call it .jsonl, so that its column of text is read")
    if not any(text.strip() for text in texts):
        raise DataError(f"{files[0]} is empty; give {key} a file with text")
    return texts


def _holds_json_lines(text: str) -> bool:
    """Whether the first lines are JSON objects: a table under the name of plain text."""
    lines = [line for line in text.split("\n", FIRST_LINES)[:FIRST_LINES] if line.strip()]
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False
