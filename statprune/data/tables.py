"""A column of a table: JSON lines, JSON, CSV, TSV or Parquet."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from statprune.data.text_files import DAMAGES, damage, kind_of, opened
from statprune.errors import DataError, first_line

TEXT, CHATS = "text", ("messages", "conversations")  # columns that are taken where none is named
LONGEST_CELL = 2**31 - 1  # characters; the csv module's own limit is 131,072


class RowError(ValueError):
    """What is wrong with a row or with a table's form, as half a sentence."""


class QuoteError(RowError):
    """Quotation marks stand where they can't if cells are quoted."""


@dataclass
class Column:
    """One column of a table.

    Attributes:
        name: its name.
        values: of its rows; None where a row has none.
    """

    name: str
    values: list[object]


@dataclass
class _Cells:
    """The cells of those columns that may be wanted, row by row.

    Attributes:
        wanted: names of the columns that are kept.
        names: of all columns, in the order of their appearance.
        rows: how many there are.
        kept: the cells, by column.
    """

    wanted: Sequence[str]
    names: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    kept: dict[str, list[object]] = field(default_factory=dict)

    def add(self, row: Mapping[str, object]) -> None:
        """Keep what is wanted of a row."""
        self.names.update(dict.fromkeys(row))
        for name in self.wanted:
            self.kept.setdefault(name, []).append(row.get(name))
        self.rows += 1

    def column(self, file: Path, key: str, like: Path | None) -> Column:
        """The first of the wanted columns that the table has."""
        name = next((name for name in self.wanted if name in self.names), None)
        if not self.rows:
            raise DataError(f"{file} has no rows; give a table with text")
        if name is None:
            return _absent(file, key, self.wanted, list(self.names), like)
        return Column(name, self.kept[name])


def read_column(file: Path, name: str | None, key: str, like: Path | None = None) -> Column:
    """A column of a table; where no name is given: ``text``, or else ``messages`` or ``conversations``.

    Args:
        file: the table.
        name: of the column.
        key: that names it (``calibration.field``), for the sentences.
        like: the table that the name was found in, where nobody has given it.

    Raises:
        DataError: the file is damaged or no table, or lacks the column.
    """
    wanted = [name] if name is not None else [TEXT, *CHATS]
    kind = kind_of(file)
    remedy = "mend it, or give another file"
    try:
        if kind == ".parquet":
            with opened(file) as stream:
                whole = io.BytesIO(stream.read()) if file.suffix != kind else file
            return _parquet_column(file, whole, wanted, key, like)
        cells = _cells(file, kind, wanted)
    except RowError as error:
        raise DataError(f"{file} can't be read as {kind.lstrip('.').upper()} ({error}); {remedy}") from error
    except (*DAMAGES, UnicodeDecodeError) as error:
        raise damage(file, error, remedy) from error
    column = cells.column(file, key, like)
    if kind in (".csv", ".tsv") and _all_numbers(column.values):
        raise DataError(f"the column {column.name} of {file} holds numbers; name one with text by {key}=")
    return column


def _cells(file: Path, kind: str, wanted: Sequence[str]) -> _Cells:
    """The cells of a file's rows.

    Many tables with tabs know no quoted cells: where quotation marks don't pair, they are letters like others.
    """
    if kind not in (".csv", ".tsv"):
        return _cells_of(file, lambda text: _json_rows(text, kind), wanted)
    try:
        return _cells_of(file, lambda text: _csv_rows(text, kind), wanted)
    except QuoteError as error:
        if kind != ".tsv":
            raise
        try:
            return _cells_of(file, _unquoted_rows, wanted)
        except RowError:
            raise error from None


def _cells_of(
    file: Path, rows: Callable[[io.TextIOWrapper], Iterator[Mapping[str, object]]], wanted: Sequence[str]
) -> _Cells:
    cells = _Cells(wanted)
    with opened(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        for row in rows(text):
            cells.add(row)
    return cells


def _absent(file: Path, key: str, wanted: Sequence[str], names: Sequence[str], like: Path | None) -> Column:
    shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    if like is not None:
        raise DataError(
            f"{file} has no column {wanted[0]!r}, which {like} has; name one that both have by {key}=, of "
            f"{shown or 'none'}, or read them apart"
        )
    if len(wanted) == 1:
        raise DataError(f"{file} has no column {wanted[0]!r}, which {key} names; it has {shown or 'none'}")
    raise DataError(f"{file} has no column 'text'; name the one to read by {key}=, of {shown or 'none'}")


def _json_rows(text: io.TextIOWrapper, kind: str) -> Iterator[Mapping[str, object]]:
    """The objects of JSON lines, of one JSON list, or a single object."""
    if kind == ".json":
        whole = text.read()
        try:
            yield from _objects(_parsed(whole))
            return
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                raise RowError(f"line {error.lineno}: {error.msg}") from error
        lines: Iterable[str] = io.StringIO(whole)  # one object in each line, whatever the name says
    else:
        lines = text
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _object(_parsed(line))
            except (json.JSONDecodeError, RowError) as error:
                raise RowError(f"line {number}: {getattr(error, 'msg', error)}") from error


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise RowError(first_line(error)) from error


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, list):
        for number, row in enumerate(value, 1):
            try:
                yield _object(row)
            except RowError as error:
                raise RowError(f"row {number}: {error}") from error
    else:
        yield _object(value)


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RowError(f"it is no object with named columns, but {type(value).__name__}")
    return value


def _csv_rows(text: io.TextIOWrapper, kind: str) -> Iterator[Mapping[str, object]]:
    """The rows below the line of names; an empty cell is an empty text."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(text, delimiter="\t" if kind == ".tsv" else ",", strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise RowError("two of its columns have one name")
        for row in reader:
            if len(row) > len(names):
                raise RowError(f"line {reader.line_num} has {len(row)} cells, and the first line names {len(names)}")
            if row:
                yield dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise QuoteError(f"line {reader.line_num}: {error}") from error


def _unquoted_rows(text: io.TextIOWrapper) -> Iterator[Mapping[str, object]]:
    """The rows of a table with tabs whose quotation marks mean nothing: a cell for each column in every line."""
    reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    names = next(reader, [])
    for row in reader:
        if row and len(row) != len(names):
            raise RowError(f"line {reader.line_num} has {len(row)} cells, and the first line names {len(names)}")
        if row:
            yield dict(zip(names, row, strict=True))


def _all_numbers(values: Sequence[object]) -> bool:
    filled = [value for value in values if isinstance(value, str) and value.strip()]
    try:
        return bool(filled) and all(math.isfinite(float(value)) for value in filled)
    except ValueError:
        return False


def _parquet_column(
    file: Path, source: io.BytesIO | Path, wanted: Sequence[str], key: str, like: Path | None
) -> Column:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(source) as table:
            names = table.schema_arrow.names
            name = next((name for name in wanted if name in names), None)
            if name is None:
                return _absent(file, key, wanted, names, like)
            return Column(name, table.read(columns=[name]).column(name).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise RowError(first_line(error)) from error
