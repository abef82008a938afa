"""Dataclasses whose fields are options: built from plain values, with a sentence for everything wrong with them."""

import difflib
import functools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, make_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from statprune.errors import ChoiceError

T = TypeVar("T")
PlainValues = dict[str, Any]  # by key, as a configuration file or a record has them


@dataclass(frozen=True)
class Built(Generic[T]):
    """What became of plain values.

    Attributes:
        value: an instance; with the defaults in place of what is wrong. None where a default is missing.
        problems: a sentence for everything wrong.
    """

    value: T | None
    problems: list[str]


def build(cls: type[T], values: Mapping[str, object], prefix: str) -> Built[T]:
    """An instance of a dataclass from plain values, each converted to its field's type.

    Args:
        cls: the dataclass; it raises ValueError, in a sentence, where a value is out of range.
        values: by field.
        prefix: of the keys in sentences: ``method.``.
    """
    names = option_names(cls)
    good: dict[str, object] = {}
    problems: list[str] = []
    for key, value in values.items():
        if key not in names:
            problems.append(_unknown(str(key), names, prefix))  # a file may have a number for a key
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{prefix}{key}={value} is not a finite number; give one")
        else:
            try:
                good[key] = _converted(cls, key, value)
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                problems.append(f"{prefix}{key}={value} has the wrong type: {reason}")
    try:
        return Built(cls(**good), problems)
    except ValueError as error:
        problems.append(str(error))
    except TypeError as error:  # a field without a default
        problems.append(f"{prefix.rstrip('.') or cls.__name__} can't be made: {error}")
    try:
        return Built(cls(), problems)
    except TypeError:
        return Built(None, problems)


def built(cls: type[T], values: Mapping[str, object], prefix: str) -> T:
    """As ``build``, for one instance.

    Raises:
        ChoiceError: with everything that is wrong.
    """
    result = build(cls, values, prefix)
    if result.problems or result.value is None:
        raise ChoiceError("; ".join(result.problems))
    return result.value


def option_names(cls: type) -> list[str]:
    """The fields of a dataclass that are options."""
    return [item.name for item in fields(cls) if item.init]  # a dataclass


def plain(options: object) -> PlainValues:
    """The fields of a dataclass's instance as a configuration file has them: an Enum is its value, a tuple a list."""
    return {item.name: _plain(getattr(options, item.name)) for item in fields(options) if item.init}  # type: ignore[arg-type]


def defaults(cls: type) -> PlainValues:
    """The defaults of a dataclass's fields as a configuration file has them.

    Raises:
        ChoiceError: a field has no default.
    """
    try:
        return plain(cls())
    except TypeError as error:
        raise ChoiceError(f"the options {cls.__qualname__} lack a default ({error}); give each field one") from error


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _unknown(key: str, names: list[str], prefix: str) -> str:
    if not names:
        return f"{prefix}{key} is not a key; there are no keys here"
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"its keys are {', '.join(names)}"
    return f"{prefix}{key} is not a key; {hint}"


def _converted(cls: type, key: str, value: object) -> object:
    """The value in the type of a dataclass's field.

    Raises:
        OmegaConfBaseException: it does not fit.
    """
    if type(value) in _plain_types(cls, key):
        return value
    annotation = get_type_hints(cls)[key]
    if isinstance(value, list) and get_origin(annotation) is tuple:
        return tuple(value)
    if isinstance(value, bool) and isinstance(annotation, type) and issubclass(annotation, Enum):
        value = str(value).lower()  # a choice called true, which YAML and Hydra read as a boolean
    converted = _convert_hashable(cls, key, value) if isinstance(value, Hashable) else _convert(cls, key, value)
    if annotation == list[str] and not all(isinstance(item, str) for item in converted):  # type: ignore[attr-defined]
        raise ValidationError("it is a list of texts, which holds no list and no dictionary")  # OmegaConf lets it pass
    return converted


@functools.cache
def _plain_types(cls: Hashable, key: str) -> frozenset[type]:
    """Types whose values a field takes as they are; texts are not among them, which OmegaConf may interpolate."""
    annotation = get_type_hints(cls)[key]
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return frozenset({bool, int, float, NoneType}.intersection(choices))


@functools.lru_cache(maxsize=4096, typed=True)
def _convert_hashable(cls: Hashable, key: str, value: Hashable) -> object:
    """As ``_convert``, remembered: the cells of a table have most of their values in common."""
    return _convert(cls, key, value)


def _convert(cls: Hashable, key: str, value: object) -> object:
    return getattr(OmegaConf.to_object(OmegaConf.merge(_typed(cls, key), {key: value})), key)


@functools.cache
def _typed(cls: Hashable, key: str) -> DictConfig:
    """One field of a dataclass with its type, without the range checks, which would judge one key at a time."""
    assert isinstance(cls, type)
    item = next(item for item in fields(cls) if item.name == key)
    kind = get_type_hints(cls)[key]  # a module may have its annotations as texts
    structured: DictConfig = OmegaConf.structured(make_dataclass(cls.__name__, [(key, kind, item)]))
    return structured
