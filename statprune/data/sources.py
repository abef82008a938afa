"""What a text source is, and the registry of sources; each has two parts, for calibration and for evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from torch import Generator

from statprune.data.token_windows import Tokenize, Windows, consecutive_windows, random_windows
from statprune.errors import PluginError, first_line
from statprune.system.contents import files_at
from statprune.system.registry import Registry

CALIBRATION, EVALUATION = "calibration", "evaluation"


class PathUse(Enum):
    """Whether a source reads ``calibration.path`` or ``evaluation.path``."""

    none = "none"
    optional = "optional"
    required = "required"


class Source(ABC):
    """Text in two parts that have nothing in common; a class whose instances are made without arguments.

    ``documents`` is all that a source needs. The name of the source is that of the registry.

    Attributes:
        path_use: whether it reads the part's path.
        reads_field: whether it reads a column that the part's field names.
        field: the name of that column; None: the source's own choice.
        separator: between the documents, where they are read as one text.
        skipped_rows: rows without text that the last reading of ``documents`` passed over.
    """

    path_use: PathUse = PathUse.none
    reads_field: bool = False
    field: str | None = None
    separator: str = "\n\n"
    skipped_rows: int = 0

    @abstractmethod
    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """The documents of one part.

        Args:
            part: calibration or evaluation.
            path: that the user gave for this part; None: none.

        Raises:
            DataError: they can't be read.
        """

    def problem(self, part: str, path: str | None) -> str | None:
        """What is wrong with the path, in a sentence, or None; asked before anything expensive begins."""
        if self.path_use is PathUse.none and path is not None:
            return f"{part}.path is given, but this source reads no file; leave it out, or choose {part}=text"
        if self.path_use is PathUse.required and path is None:
            return f"{part}.path is not set, and this source needs it; give one"
        return None

    def files_read(self, part: str, path: str) -> dict[str, Path]:
        """The files that are read where the user gave a path, by name; they decide whether a run is still the same.

        Args:
            part: calibration or evaluation.
            path: a file, a folder or a pattern.
        """
        return files_at(path)

    def text(self, part: str, path: str | None) -> str:
        """One part as a single text.

        Raises:
            DataError: it can't be read.
        """
        return self.separator.join(self.documents(part, path))

    def tokens(self, tokenize: Tokenize, part: str, path: str | None) -> Windows:
        """One part tokenised whole, as one row of ids, (tokens,).

        Args:
            tokenize: a text to its tokens.
            part: calibration or evaluation.
            path: as for ``documents``.

        Raises:
            DataError: it can't be read.
        """
        text = self.text(part, path)
        return tokenize.whole(text, self.skipped_rows)

    def calibration_windows(
        self, tokenize: Tokenize, samples: int, seq_len: int, generator: Generator, path: str | None
    ) -> Windows:
        """Windows at random places of the text, which is tokenised whole.

        Args:
            tokenize: a text to its tokens.
            samples: number of windows.
            seq_len: tokens of a window.
            generator: of every random choice.
            path: as for ``documents``.

        Raises:
            DataError: the text can't be read, or is too short for one window.
        """
        return random_windows(self.tokens(tokenize, CALIBRATION, path), samples, seq_len, generator)

    def evaluation_windows(
        self, tokenize: Tokenize, seq_len: int, max_windows: int | None, path: str | None
    ) -> Windows:
        """Consecutive windows of the text, which is tokenised whole; the remainder is dropped.

        Args:
            tokenize: a text to its tokens.
            seq_len: tokens of a window.
            max_windows: at most so many, the first ones; None: all.
            path: as for ``documents``.

        Raises:
            DataError: the text can't be read, or is too short for one window.
        """
        return consecutive_windows(self.tokens(tokenize, EVALUATION, path), seq_len, max_windows)


def _source_problem(value: object) -> str | None:
    if isinstance(value, type) and issubclass(value, Source):
        return None
    return "it is no subclass of statprune.Source"


SOURCES: Registry[Callable[[], Source]] = Registry(
    "source",
    "statprune.sources",
    {
        "bundled": "statprune.data.bundled:Bundled",
        "text": "statprune.data.text_file:TextFile",
        "wikitext2": "statprune.data.hub_datasets:WikiText2",
        "c4": "statprune.data.hub_datasets:C4",
        "ptb": "statprune.data.hub_datasets:PTB",
    },
    _source_problem,
)


def get_source(name: str, field: str | None = None) -> Source:
    """The source called ``name``.

    Args:
        name: of the source.
        field: name of the column that it reads, for a source that reads one.

    Raises:
        ChoiceError: there is none.
        PluginError: the plugin that has it can't be imported, or its class needs arguments.
    """
    cls = SOURCES.get(name)
    try:
        source = cls()
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise PluginError(f"{SOURCES.described(name)} can't be made without arguments ({reason}); mend it") from error
    if field is not None:
        source.field = field
    return source


def source_problem(part: str, name: str, path: str | None, field: str | None) -> str | None:
    """What is wrong with the path and the column of one part's source, in a sentence, or None.

    Args:
        part: calibration or evaluation.
        name: of the source.
        path: that it reads.
        field: the column that it reads.
    """
    source = get_source(name, field)
    if field is not None and not source.reads_field:
        return f"{part}.field={field} is given, but the source {name} reads no column; leave it out, or choose text"
    return source.problem(part, path)


def path_owner(names: Sequence[str]) -> str | None:
    """Which of several sources one path is for: the one that needs it, or else the only one that may have one."""
    uses = {name: get_source(name).path_use for name in names}
    required = [name for name, use in uses.items() if use is PathUse.required]
    optional = [name for name, use in uses.items() if use is PathUse.optional]
    candidates = required or optional
    return candidates[0] if len(candidates) == 1 else None


def field_owner(names: Sequence[str]) -> str | None:
    """Which of several sources a column's name is for: the one that reads columns; None where none or several do."""
    readers = [name for name in names if get_source(name).reads_field]
    return readers[0] if len(readers) == 1 else None
