"""What docstrings say: help texts and the reference are made of them.

The style is Google's. The attributes of options are their keys' meanings; one ends with its unit in brackets where it
has one: ``seq_len: length of a window [tokens].``
"""

import inspect
import re
from dataclasses import dataclass

SECTION = re.compile(r"^(Args|Attributes|Examples?|Notes?|Raises|Returns|Yields):$", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+)(?: \([^)]*\))?: ?(.*)$")
UNIT = re.compile(r"\s*\[([^\[\]]+)\]$")


@dataclass(frozen=True)
class Described:
    """What a docstring says of one attribute.

    Attributes:
        meaning: without the full stop at its end.
        unit: None where none is named.
    """

    meaning: str
    unit: str | None


def description(thing: object) -> str:
    """The docstring without its sections; empty where there is none of its own."""
    text = _docstring(thing)
    section = SECTION.search(text)
    return (text[: section.start()] if section else text).strip()


def summary(text: str) -> str:
    """The first paragraph of a text, as one line."""
    return " ".join(text.partition("\n\n")[0].split())


def attributes(cls: type) -> dict[str, Described]:
    """What the docstring of a class, and those of the classes it extends, say of its attributes, by name."""
    found: dict[str, Described] = {}
    for own in reversed(cls.__mro__):
        entries: dict[str, list[str]] = {}
        name = ""
        for line in _section(_docstring(own), "Attributes").splitlines():
            if match := ENTRY.match(line):
                name = match[1]
                entries[name] = [match[2]]
            elif name and line.strip():
                entries[name].append(line.strip())
        found |= {name: described(" ".join(lines)) for name, lines in entries.items()}
    return found


def described(text: str) -> Described:
    """A meaning, and the unit in brackets at its end, if there is one."""
    meaning = text.strip().removesuffix(".")
    match = UNIT.search(meaning)
    return Described(meaning[: match.start()] if match else meaning, match[1] if match else None)


def _section(text: str, name: str) -> str:
    sections = SECTION.split(text)  # text, name, text, name, text ...
    return next((body for title, body in zip(sections[1::2], sections[2::2], strict=True) if title == name), "")


def _docstring(thing: object) -> str:
    """Its own docstring with single backticks; a dataclass without one has only the signature that Python writes."""
    if isinstance(thing, type) and thing.__module__ in ("builtins", "abc"):
        return ""
    text = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    if not text or (isinstance(thing, type) and text.startswith(f"{thing.__name__}(")):
        return ""
    return inspect.cleandoc(text).replace("``", "`")
