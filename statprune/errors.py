"""The errors a user can cause. Each message is one sentence: what is wrong, where, and what to do instead."""

import re
from collections.abc import Sequence
from signal import SIGINT

LONGEST_WORD, LONGEST_SENTENCE = 300, 2000  # characters of what a user typed, and of the whole, that are shown


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, short enough for a sentence."""
    return (str(error).strip() or "no reason given").splitlines()[0]


def one_line(text: str) -> str:
    """A sentence that fits on a terminal, whatever a user typed into it.

    Lines become one, and signs that can't be printed are shown as escapes. A word of more than ``LONGEST_WORD``
    characters, such as a path, loses its middle, and a sentence of more than ``LONGEST_SENTENCE`` its end.
    """
    text = re.sub(r"\s*[\n\r]\s*", " ", text.strip())
    printable = "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)
    words = [word if len(word) <= LONGEST_WORD else _without_middle(word) for word in printable.split(" ")]
    line = " ".join(words)
    return line if len(line) <= LONGEST_SENTENCE else line[: LONGEST_SENTENCE - 1] + "…"


def _without_middle(word: str) -> str:
    half = LONGEST_WORD // 2 - 1
    return f"{word[:half]}…{word[-half:]}"


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")


class StatpruneError(Exception):
    """A problem the user can fix; the command prints its message without a traceback."""


class ConfigError(StatpruneError):
    """All problems of one configuration, reported together.

    Attributes:
        problems: one sentence each, naming the key.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class ModelError(StatpruneError):
    """The model can't be opened, or can't be pruned as asked."""


class KeptModelError(ModelError):
    """A pruned model that was kept to be evaluated can't be opened: it has to be pruned again."""


class DataError(StatpruneError):
    """A text source can't be read, or is too short."""


class ChoiceError(StatpruneError, ValueError):
    """A name or an option that does not exist, or an option's value that is out of range."""


class DamagedError(StatpruneError, ValueError):
    """A file does not hold what was written into it."""


class PluginError(StatpruneError):
    """A plugin can't be imported, or does not fit in."""


class Interrupted(StatpruneError):
    """A signal asked the process to stop, and it did so where the same command goes on later.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int, message: str = "interrupted"):
        self.signal = signal
        super().__init__(message)


def interruption(error: BaseException) -> int | None:
    """The number of the signal that an error tells of; None where it tells of none."""
    if isinstance(error, Interrupted):
        return error.signal
    if isinstance(error, KeyboardInterrupt):
        return error.args[0] if error.args and isinstance(error.args[0], int) else SIGINT
    return None
