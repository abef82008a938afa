"""The record of a run as a page of Markdown, from the types that are written: ``docs/reference/record.md``."""

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from statprune.cli.reference_page import table
from statprune.config.reference_keys import NAMES
from statprune.pruning.report import JSON_KEYS, MatrixReport
from statprune.pruning.stage_numbers import STAGE_NUMBERS
from statprune.runs.columns import DocumentRow, WindowRow
from statprune.runs.record import RunRecord
from statprune.runs.store import DOCUMENTS, MASKS, MODEL, RECORD, REPORTS, WINDOWS
from statprune.system.docstrings import Described, attributes, described, description, summary

HEAD = f"""# The record of a run

What a run leaves in its folder, `outputs/<name>/<run>/`, field by field. The page is made by
`statprune options --record-markdown` from the types that are written and their docstrings.

| file | what it is |
| --- | --- |
| `{RECORD}` | the record: written last, atomically; a folder without it holds no finished run |
| `{REPORTS}` | a line of JSON for each pruned matrix |
| `{WINDOWS}` | a row for each evaluation window |
| `{DOCUMENTS}` | a row for each document of a zero-shot task and each metric; only where tasks were asked |
| `{MODEL}/` | the pruned model: with `save_model=true` for `from_pretrained`, `compressed` for `statprune decompress` |
| `{MASKS}` | the masks, a bit for each weight; only with `tracking.artifacts=[masks]` |
| `.hydra/` | the configuration and the overrides as Hydra writes them |

`null` stands for what was not measured, and for numbers that are not finite. A mapping's keys are the user's: names of
datasets, tasks, files. Records of every older schema are read, and migrated while that is done. Beside the fields below
`result.json` has `sha256`, a checksum of all others: a record that was edited is told from one that a run wrote.
"""
COLUMNS = ("type", "unit", "meaning")


def record_page() -> str:
    """The whole page."""
    parts = [HEAD, f"## {RECORD}\n"]
    for place, cls in _parts(RunRecord):
        parts += [f"### {cls.__name__}\n", f"{_told(cls, place)}\n", _fields_table("field", cls)]
    parts += [f"## {REPORTS}\n", f"{_told(MatrixReport)}\n", _fields_table("key", MatrixReport, JSON_KEYS)]
    parts += ["What the stages of the run report of the matrix, each where the stage has it:\n"]
    for stage, numbers in STAGE_NUMBERS.items():
        rows = [(f"`{key}`", "float or null", *_meaning(described(text))) for key, text in numbers.items()]
        parts.append(table((f"key, {stage}", *COLUMNS), rows))
    for file, cls in ((WINDOWS, WindowRow), (DOCUMENTS, DocumentRow)):
        parts += [f"## {file}\n", f"{_told(cls)}\n", _fields_table("column", cls)]
    return "\n".join(parts)


def type_of(annotation: object) -> str:
    """A field's type as people write it, with links to the parts of a record."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join([*(type_of(own) for own in arguments if own is not NoneType), "null"][: len(arguments)])
    if origin is list:
        return f"list of {_grouped(arguments[0])}"
    if origin is dict and Any not in arguments:
        return f"mapping of {_grouped(arguments[1])}"
    if isinstance(annotation, type) and is_dataclass(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return NAMES[origin or annotation]


def _grouped(annotation: object) -> str:
    text = type_of(annotation)
    return f"({text})" if " or " in text and " or false" not in text else text


def _parts(cls: type) -> Iterator[tuple[str, type]]:
    """A record's mappings, each once: where the first of a kind stands, and its type."""
    waiting, seen = [("", cls)], {cls}
    while waiting:
        place, own = waiting.pop(0)
        yield place, own
        for name, annotation in typing.get_type_hints(own).items():
            for inner, suffix in _dataclasses_in(annotation):
                if inner not in seen:
                    seen.add(inner)
                    waiting.append((f"{place}.{name}{suffix}".lstrip("."), inner))


def _dataclasses_in(annotation: object, suffix: str = "") -> Iterator[tuple[type, str]]:
    if isinstance(annotation, type) and is_dataclass(annotation):
        yield annotation, suffix
    suffix += ".NAME" if get_origin(annotation) is dict else ""
    for own in get_args(annotation):
        yield from _dataclasses_in(own, suffix)


def _told(cls: type, place: str = "") -> str:
    text = _with_null(summary(description(cls)))
    return f"`{place}`: {text[0].lower()}{text[1:]}" if place else text


def _fields_table(title: str, cls: type, keys: Mapping[str, str] | None = None) -> str:
    told, hints = attributes(cls), typing.get_type_hints(cls)
    rows = [
        (f"`{(keys or {}).get(item.name, item.name)}`", type_of(hints[item.name]), *_meaning(told[item.name]))
        for item in fields(cls)
        if not (cls is MatrixReport and item.name == "diagnostics")
    ]
    return table((title, *COLUMNS), rows)


def _meaning(told: Described) -> tuple[str, str]:
    return told.unit or "", _with_null(told.meaning)


def _with_null(text: str) -> str:
    """Docstrings speak Python, files JSON."""
    return re.sub(r"\bNone\b", "null", text)
