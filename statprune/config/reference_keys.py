"""One key of the reference: its type as people write it, its default, its unit and its meaning."""

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from statprune.system.docstrings import Described, attributes, described, description

NAMES: Mapping[object, str] = {bool: "true or false", int: "int", float: "float", str: "text", dict: "mapping"}
PLURALS = {"int": "ints", "float": "floats", "text": "texts"}
YAML_WORDS = {"None": "null", "True": "true", "False": "false"}  # docstrings speak Python
MUST_BE_GIVEN = "???"  # OmegaConf's sign for a value without default


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: full name: method.alpha.
        type: as people write it.
        default: what a run has where the user gives nothing, as a plain value, not resolved.
        unit: None where it has none.
        meaning: of the value.
    """

    name: str
    type: str
    default: object
    unit: str | None
    meaning: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", plain(self.default))  # plugins' configurations hold enums and paths

    @property
    def shown_default(self) -> str:
        """The default as ``--cfg job`` prints it, on one line."""
        return shown(self.default)

    @property
    def assignment(self) -> str:
        """The key with its default, as on the command line."""
        return f"{self.name}={self.shown_default}"


def shown(value: object) -> str:
    """A plain value on one line, as YAML has it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def plain(value: object) -> object:
    """A value as YAML and JSON have it: an enum's member by its name, as on the command line; a path as its text."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The full names and the values of nested keys; an empty mapping is a value."""
    for name, value in values.items():
        full = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, full)
        else:
            yield full, value


def key_of(name: str, value: object, classes: Sequence[type], comment: str = "") -> Key:
    """A key with what is known of it.

    Args:
        name: full name.
        value: its default.
        classes: dataclasses that may have it as a field; the first one that has it describes it.
        comment: what a file says of it, where no class does.
    """
    field = name.rpartition(".")[2]
    for cls in classes:
        if field in {item.name for item in fields(cls)}:
            return _of_field(name, value, cls, field)
    told = described(comment)
    meaning = "must be given; there is no default" if value == MUST_BE_GIVEN and not comment else told.meaning
    return Key(name, _type_of_value(value), value, told.unit, meaning)


def type_text(annotation: object) -> str:
    """A type as people write it: ``float or null``; the text that annotates it, where it is ``Annotated`` with one."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        texts = [item for item in arguments[1:] if isinstance(item, str)]
        return texts[0] if texts else type_text(arguments[0])
    if annotation == bool | None:
        return "true, false or null"
    if origin in (Union, UnionType):
        texts = [type_text(own) for own in arguments if own is not NoneType]
        return " or ".join([*texts, *(["null"] if NoneType in arguments else [])])
    if origin in (list, tuple, Sequence, typing.Sequence):
        own = type_text(arguments[0]) if arguments else "values"
        return f"list of {PLURALS.get(own, own)}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(member.name for member in annotation)  # as on the command line
    return NAMES.get(origin or annotation, "any value")


def _of_field(name: str, value: object, cls: type, field: str) -> Key:
    told = attributes(cls).get(field, Described("", None))
    annotation = typing.get_type_hints(cls, include_extras=True)[field]
    meaning = "; ".join(filter(None, [told.meaning, _values_explained(annotation)]))
    meaning = re.sub(r"\b(None|True|False)\b", lambda word: YAML_WORDS[word[1]], meaning)
    return Key(name, type_text(annotation), value, told.unit, meaning)


def _values_explained(annotation: object) -> str:
    """What the docstring of an Enum says below its first paragraph: what each value means."""
    kinds = [own for own in (annotation, *get_args(annotation)) if isinstance(own, type) and issubclass(own, Enum)]
    return " ".join(description(kinds[0]).partition("\n\n")[2].split()).removesuffix(".") if kinds else ""


def _type_of_value(value: object) -> str:
    if isinstance(value, str) and (value.startswith("${") or value == MUST_BE_GIVEN):
        return "any value"
    if isinstance(value, list):
        return "list"
    return NAMES.get(type(value), "any value")
