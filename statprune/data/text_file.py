"""A text file of the user's."""

from collections.abc import Sequence
from pathlib import Path

from statprune.data.sources import PathUse, Source
from statprune.errors import DataError


class TextFile(Source):
    """A UTF-8 text file, read whole; each part has its own."""

    path_use = PathUse.required

    def problem(self, part: str, path: str | None) -> str | None:
        """What is wrong with the file; it is read."""
        try:
            self.documents(part, path)
        except DataError as error:
            return str(error)
        return None

    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """The file's whole text as one document."""
        if path is None:
            raise DataError(f"{part}.path is not set, and the source text needs it; give {part}.path=/path/to/file.txt")
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"{part}.path={path} is no file; give the UTF-8 text file to read")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise DataError(f"{part}.path={path} can't be read ({reason}); give a UTF-8 text file") from error
        if not text.strip():
            raise DataError(f"{part}.path={path} is empty; give a file with text")
        return [text]
