"""Files of the user's: plain text, or a column of tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from statprune.data.chats import Chat, chat_of, rendered
from statprune.data.sources import PathUse, Source
from statprune.data.tables import CHATS, Column, read_column
from statprune.data.text_files import PROSE, checked_files, files_of, kind_of, read_prose
from statprune.data.token_windows import Tokenize, Windows
from statprune.errors import DataError


@dataclass(frozen=True)
class _Read:
    """What files hold: texts, or conversations.

    Attributes:
        texts: documents.
        chats: conversations.
        skipped: rows without text: null, or nothing but blanks.
    """

    texts: list[str]
    chats: list[Chat]
    skipped: int


class TextFile(Source):
    """A text file, a column of a table, or a folder or pattern of either; each part has its own.

    A plain text file is one document, and so is every row of a table; rows without text are skipped and counted.
    Conversations, lists of messages with role and content, are written by the tokenizer's chat template, which puts
    the special tokens in, so that the tokenizer adds none of its own.
    """

    path_use = PathUse.required
    reads_field = True

    def problem(self, part: str, path: str | None) -> str | None:
        """What is wrong with the files; they are read."""
        try:
            self._read(part, path)
        except DataError as error:
            return str(error)
        return None

    def files_read(self, part: str, path: str) -> dict[str, Path]:
        """The files that are read, without those that are hidden, by their names below the path."""
        place = Path(path).expanduser()
        files = files_of(path)
        if place.is_dir():
            return {str(file.relative_to(place)): file for file in files}
        return {file.name if file == place else str(file): file for file in files}

    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """The texts of files or rows."""
        read = self._read(part, path)
        self.skipped_rows = read.skipped
        if read.chats:
            raise DataError(f"{part}.path={path} holds conversations, which a tokenizer is needed for")
        return read.texts

    def tokens(self, tokenize: Tokenize, part: str, path: str | None) -> Windows:
        """One part, tokenised whole."""
        read = self._read(part, path)
        texts = read.texts or rendered(tokenize.tokenizer, read.chats, f"{part}.path={path}")
        return tokenize.whole(self.separator.join(texts), read.skipped, adds_special_tokens=not read.chats)

    def holds_chats(self, part: str, path: str | None) -> bool:
        """Whether the files hold conversations, which need a chat template."""
        files = files_of(path) if path is not None else []
        return bool(files) and kind_of(files[0]) not in PROSE and bool(self._read(part, path).chats)

    def _read(self, part: str, path: str | None) -> _Read:
        if not path:
            raise DataError(f"{part}.path is not set, and the source text needs it; give {part}.path=/path/to/file.txt")
        files = checked_files(path, f"{part}.path")
        if kind_of(files[0]) in PROSE:
            if self.field is not None:
                raise DataError(
                    f"{part}.field={self.field} is given, but {part}.path={path} is plain text, which has no columns; "
                    f"leave {part}.field out"
                )
            return _Read(read_prose(files, f"{part}.path"), [], 0)
        return self._read_tables(files, part, path)

    def _read_tables(self, files: Sequence[Path], part: str, path: str) -> _Read:
        texts: list[str] = []
        chats: list[Chat] = []
        name, rows = self.field, 0
        for file in files:
            found_in = files[0] if self.field is None and name is not None else None
            column = read_column(file, name, f"{part}.field", found_in)
            name, rows = column.name, rows + len(column.values)
            for number, value in enumerate(column.values, 1):
                _add(texts, chats, value, column, f"row {number} of the column {name!r} of {file}")
        if texts and chats:
            raise DataError(f"the column {name!r} of {part}.path={path} holds texts and conversations; give one kind")
        if not texts and not chats:
            raise DataError(
                f"the column {name!r} of {part}.path={path} has no text in any of its {rows} rows; name another by "
                f"{part}.field=, or give other files"
            )
        return _Read(texts, chats, rows - len(texts) - len(chats))


def _add(texts: list[str], chats: list[Chat], value: object, column: Column, where: str) -> None:
    """Add a cell to the texts or conversations, unless it has no text."""
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))
    if is_missing or (isinstance(value, str) and not value.strip()):
        return
    if isinstance(value, str) and column.name not in CHATS:
        texts.append(value)
        _check_letters(value, where)
        return
    if not isinstance(value, list) and column.name not in CHATS:
        raise DataError(f"{where} is no text, but of the type {type(value).__name__}; name a column of text")
    try:
        chat = chat_of(value)
    except ValueError as error:
        raise DataError(f"{where} can't be read ({error}); name a column of text, or one of such messages") from error
    if chat is not None:
        chats.append(chat)
        for message in chat:
            _check_letters(message["role"] + message["content"], where)


def _check_letters(text: str, where: str) -> None:
    """Raise DataError where a text holds half a letter, which JSON can write and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half of a surrogate pair, which is no letter; mend that row") from error
