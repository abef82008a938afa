"""The reference as a page of Markdown: ``docs/reference/options.md``."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from statprune.config.reference import Choice, Group
from statprune.config.reference_keys import Key

HEAD = """# Options

Every group, choice and key of the configuration, made by `statprune options --markdown` from dataclasses, their
docstrings and the files in `conf/`. "The paper" is arXiv 2602.07375. A choice is made by `group=choice`, a key is set
by `key=value`. Defaults are those of the default job as `statprune --cfg job` prints them, where `${...}` stands for
the value of another key. With your own folder and plugins: `statprune options --config-dir DIR --plugins FILE`.
"""

INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)


def reference_page(keys: Sequence[Key], groups: Sequence[Group]) -> str:
    """The whole page.

    Args:
        keys: those outside of groups.
        groups: all groups.
    """
    parts = [HEAD, "## Keys outside of groups\n", keys_table(keys)]
    for group in groups:
        parts += [
            f"## {group.name}\n",
            *([f"{group.meaning[0].upper()}{group.meaning[1:]}.\n"] if group.meaning else []),
        ]
        parts.append(_table_of_choices(group))
        if group.keys:
            parts.append(keys_table(group.keys))
        for choice in group.choices:
            parts += _choice(group, choice)
    return "\n".join(parts)


def _table_of_choices(group: Group) -> str:
    rows = [(_code(f"{group.name}={choice.name}"), _told(group, choice)) for choice in group.choices]
    return table(("choice", "what it is"), rows)


def _told(group: Group, choice: Choice) -> str:
    """What a choice is, where it comes from, and what it changes."""
    if choice.problem:
        return f"can't be used: {choice.problem}"
    marks = [*(["the default"] if choice.name == group.default else []), *([choice.origin] if choice.origin else [])]
    assigned = ", ".join(key.assignment for key in choice.sets)
    summary = _code(assigned) if choice.summary == assigned else f"{choice.summary.removesuffix('.')}."
    texts = [summary + (f" ({', '.join(marks)})" if marks else "")]
    changed = ", ".join(_code(key.assignment) for key in group.changed_keys(choice))
    if choice.based_on:
        texts.append(f"It is {_code(choice.based_on)} with {changed}.")
    elif changed and choice.summary != assigned:
        texts.append(f"It sets {changed}.")
    if choice.brings:
        texts.append(f"It brings {', '.join(_code(name) for name in choice.brings)}.")
    return " ".join(texts)


def _choice(group: Group, choice: Choice) -> list[str]:
    """A section for a choice that has keys of its own, or more to tell than its line in the table."""
    common = {key.name for key in group.keys}
    keys = [] if choice.based_on else [key for key in choice.sets if key.name not in common]
    has_more = "\n\n" in choice.source and not choice.based_on
    if not keys and not has_more:
        return []
    texts = [text for text in (choice.source, choice.note) if text] if not choice.based_on else []
    parts = [f"### {group.name}={choice.name}\n", *(f"{_fenced(text)}\n" for text in texts)]
    return [*parts, *([keys_table(keys)] if keys else [])]


def keys_table(keys: Iterable[Key]) -> str:
    """Keys as a table: type, default, unit and meaning."""
    rows = [(_code(key.name), key.type, _code(key.shown_default), key.unit or "", key.meaning) for key in keys]
    return table(("key", "type", "default", "unit", "meaning"), rows)


def _fenced(text: str) -> str:
    """A docstring with its indented equations as fenced blocks."""
    return INDENTED.sub(lambda block: f"```text\n{textwrap.dedent(block[0]).rstrip()}\n```\n", text)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; what would end a cell is escaped."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"
