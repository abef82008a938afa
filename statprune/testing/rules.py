"""Rules that every kind of plugin keeps, each a sentence where it is broken."""

import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from statprune.core.statistics import InputStatistics
from statprune.errors import StatpruneError, first_line
from statprune.system.options import built, defaults, plain

T = TypeVar("T")


def require(holds: bool, sentence: str) -> None:
    """Raise AssertionError with the sentence unless the rule holds."""
    if not holds:
        fail(sentence)


def fail(sentence: str) -> NoReturn:
    """Raise AssertionError with the sentence."""
    raise AssertionError(sentence)


def called(what: str, act: Callable[[], T]) -> T:
    """What ``act`` returns; AssertionError where it raises anything.

    Args:
        what: is called, and where: for the sentence.
        act: calls it.
    """
    try:
        return act()
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__}: {first_line(error)}") from error


def check_options(options: object, prefix: str) -> None:
    """An instance of options: a frozen dataclass whose fields can be keys of a configuration.

    Args:
        options: the instance.
        prefix: of its keys: ``method.``.
    """
    cls = type(options)
    require(
        is_dataclass(cls) and "__dataclass_fields__" in cls.__dict__,
        f"{cls.__name__} is no dataclass; write @dataclass(frozen=True) above the class",
    )
    parameters: Any = vars(cls)["__dataclass_params__"]
    require(parameters.frozen, f"{cls.__name__} is not frozen; write @dataclass(frozen=True) above the class")
    try:
        defaults(cls)
    except StatpruneError as error:
        fail(str(error))
    try:
        hash(options)
    except TypeError as error:
        fail(f"{cls.__name__} can't be hashed ({error}); give its fields types such as tuple in place of list")
    require(" object at 0x" not in repr(options), f"repr() of {cls.__name__} holds an address; leave repr to dataclass")
    values = plain(options)
    try:
        read = json.loads(json.dumps(values))
        again = built(cls, read, prefix)
    except (TypeError, StatpruneError) as error:
        fail(f"{cls.__name__} can't be read back from a record ({first_line(error)}); use numbers, texts, bool, Enum")
    require(again == options, f"{cls.__name__} read back from a record is {again}, but it was {options}")


class Unchanged:
    """Tensors and statistics as they were, to be compared with what they are after a call.

    Args:
        what: is called, and where: for the sentence.
        inputs: by name.
    """

    def __init__(self, what: str, inputs: Mapping[str, Tensor | InputStatistics]):
        self._what, self._inputs = what, inputs
        self._before = {name: _copies(value) for name, value in inputs.items()}

    def check(self) -> None:
        """Raise AssertionError where one was changed."""
        for name, value in self._inputs.items():
            now = _copies(value)
            is_same = all(identical(first, second) for first, second in zip(self._before[name], now, strict=True))
            require(is_same, f"{self._what} changes its argument {name}; work on a copy: {name}.clone() or {name} * 1")


def _copies(value: Tensor | InputStatistics) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.clone()]
    own = [value.mean.clone(), value.variance.clone(), value.rows.clone(), torch.tensor(value.count)]
    return [*own, value.gram.clone()] if value.kind.name == "GRAM" else own


def identical(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits' meaning."""
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def check_tensor(tensor: object, like: Tensor, what: str, dtype: torch.dtype | None = None) -> Tensor:
    """Raise AssertionError unless ``tensor`` has the shape and device of ``like``, its dtype, and finite values.

    Args:
        tensor: to check.
        like: the weight.
        what: it is, and of which call: for the sentence.
        dtype: other than that of ``like``.
    """
    if not isinstance(tensor, Tensor):
        fail(f"{what} is no tensor but {type(tensor).__name__}")
    wanted = dtype or like.dtype
    require(
        tensor.shape == like.shape,
        f"{what} has the shape {tuple(tensor.shape)}, but the weight has {tuple(like.shape)}",
    )
    require(tensor.dtype is wanted, f"{what} is {tensor.dtype}, but has to be {wanted}; convert with .to(weight.dtype)")
    require(tensor.device == like.device, f"{what} is on {tensor.device}, but the weight is on {like.device}")
    if tensor.is_floating_point():
        require(not bool(tensor.isnan().any()), f"{what} holds NaN")
        require(bool(tensor.isfinite().all()), f"{what} holds an infinity")
    return tensor
