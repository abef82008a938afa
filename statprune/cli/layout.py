"""Lines of help: headings, and entries with what they mean beside or below them."""

import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from statprune.config.reference_keys import Key

WIDEST = 100  # longer lines are hard to read, however wide the terminal is
COLUMN = 32  # where meanings begin


def console() -> Console:
    """Standard output; 80 columns where it is no terminal."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def width() -> int:
    """Of a line, in columns."""
    return min(WIDEST, console().width)


def show(lines: Iterable[Text]) -> None:
    """Print lines."""
    output = console()
    for line in lines:
        output.print(line)


def heading(text: str) -> Text:
    """A heading; it is wrapped."""
    return Text(textwrap.fill(text, width()), style="bold")


def paragraphs(text: str, indent: int = 2) -> Text:
    """A text whose paragraphs are wrapped; indented ones, which are equations, stay as they are."""
    parts = []
    for part in text.split("\n\n"):
        is_equation = part.startswith("    ")
        parts.append(textwrap.indent(part, " " * indent) if is_equation else _filled(part, indent))
    return Text("\n\n".join(parts))


def entry(name: str, meaning: str, indent: int = 2, column: int = COLUMN) -> Text:
    """A name with its meaning in the second column, which begins a line below where the name is long."""
    left = " " * indent + name
    right = _filled(meaning, column) if meaning else ""
    if len(left) > column - 2:
        return Text.assemble((left, "cyan"), "\n" + right if right else "")
    return Text.assemble((left, "cyan"), " " * (column - len(left)), right[column:])


def key_entries(keys: Sequence[Key]) -> list[Text]:
    """A key with everything about it: two lines or more."""
    lines = []
    for key in keys:
        facts = [key.type, f"default {key.shown_default}", *([f"unit: {key.unit}"] if key.unit else [])]
        meaning = f"\n{_filled(key.meaning, 6)}" if key.meaning else ""
        facts_line = textwrap.fill(", ".join(facts), width(), initial_indent=" " * 4, subsequent_indent=" " * 6)
        lines.append(Text.assemble((f"  {key.name}", "cyan"), f"\n{facts_line}", meaning))
    return lines


def _filled(text: str, indent: int) -> str:
    space = " " * indent
    lines = textwrap.wrap(
        " ".join(text.split()),
        width(),
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
