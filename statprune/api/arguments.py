"""What a caller gives as a name, a number or an object, and a sentence for what is none of these."""

import numbers
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from statprune.config.choices import NONE
from statprune.config.sparsity import expression_problems
from statprune.core.compensation import COMPENSATIONS, Compensation
from statprune.core.methods import Method, ScoreMethod, get_method
from statprune.core.patterns import PATTERNS, Group, NofM, Pattern, Unstructured
from statprune.core.refinement import REFINEMENTS, Refinement
from statprune.core.score import Score
from statprune.errors import ChoiceError, ConfigError, ModelError, StatpruneError
from statprune.model.loading import LoadedModel
from statprune.model.opened import check_own_weights
from statprune.pruning.allocation import ALLOCATIONS, UNIFORM, Allocation
from statprune.system.options import built
from statprune.system.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


@contextmanager
def out_of_range() -> Iterator[None]:
    """Give a dataclass's ValueError, which is a sentence, the type of our own errors."""
    try:
        yield
    except StatpruneError:
        raise
    except ValueError as error:
        raise ChoiceError(str(error)) from error


def opened_model(model: object, function: str) -> "PreTrainedModel":
    """The transformers model.

    Args:
        model: what the caller gave.
        function: that was called, for the sentence.

    Raises:
        ModelError: it is no opened causal language model.
    """
    from transformers import PreTrainedModel

    if isinstance(model, LoadedModel):
        return model.model
    if isinstance(model, PreTrainedModel):
        check_own_weights(model)
        return model
    if isinstance(model, str | Path):
        raise ModelError(f"{function}() takes an opened model; open it with model = load_model({str(model)!r}) first")
    raise ModelError(
        f"{function}() takes what load_model() returns, or a transformers model, and this is {_kind(model)}; "
        "unwrap a model that another library has wrapped"
    )


def read_method(method: object) -> Method:
    """A method from its name, a score or a method.

    Raises:
        ChoiceError: it is none of these, or unknown.
    """
    if isinstance(method, str):
        return get_method(method)
    if isinstance(method, Method):
        return method
    if isinstance(method, Score):
        with out_of_range():
            return ScoreMethod(method, method.options())
    if isinstance(method, type) and issubclass(method, Method):
        raise ChoiceError(f"{method.__name__} is a class; give a method made from it, {method.__name__}()")
    if callable(method):
        raise ChoiceError(f"{_kind(method)} is no score; write @statprune.score() above it")
    raise ChoiceError(f'a method is a name such as "wanda", a Method or a Score, and this is {_kind(method)}')


def read_pattern(pattern: object, method: Method) -> Pattern:
    """A pattern from a ratio, a text such as ``2:4``, or a pattern.

    Args:
        pattern: what the caller gave.
        method: whose authors' comparison group an unstructured ratio has.

    Raises:
        ChoiceError: it is none of these, or out of range, or the method can't have it.
    """
    with out_of_range():
        chosen = _pattern(pattern, method.group)
    if problem := method.problem(chosen):
        raise ChoiceError(problem)
    return chosen


def _pattern(pattern: object, group: Group) -> Pattern:
    if isinstance(pattern, Pattern):
        return pattern
    if isinstance(pattern, numbers.Real) and not isinstance(pattern, bool):
        return Unstructured(float(pattern), group)
    if not isinstance(pattern, str):
        raise ChoiceError(f'a pattern is a ratio such as 0.5, a text such as "2:4", or a Pattern, not {_kind(pattern)}')
    text = pattern.strip()
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        return NofM(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"(\d*\.?\d+) ?%", text):
        return Unstructured(float(found[1]) / 100, group)
    if re.fullmatch(r"\d*\.?\d+", text):
        return Unstructured(float(text), group)
    if text in PATTERNS:
        return built(PATTERNS.get(text), {}, "pattern.")
    raise ChoiceError(f'the pattern {pattern!r} is unknown; give a ratio such as 0.5 or "50%", or an N:M such as "2:4"')


def read_compensation(value: object) -> Compensation | None:
    """A compensation from its name or itself; None for None and ``none``.

    Raises:
        ChoiceError: it is none, or unknown.
    """
    return _chosen(COMPENSATIONS, Compensation, value, NONE)


def read_refinement(value: object) -> Refinement | None:
    """A refinement from its name or itself; None for None and ``none``.

    Raises:
        ChoiceError: it is none, or unknown.
    """
    return _chosen(REFINEMENTS, Refinement, value, NONE)


def read_allocation(value: object) -> Allocation | None:
    """An allocation from its name or itself; None for None and ``uniform``.

    Raises:
        ChoiceError: it is none, or unknown.
    """
    return _chosen(ALLOCATIONS, Allocation, value, UNIFORM)


def _chosen(registry: Registry[type[T]], base: type, value: object, nothing: str) -> T | None:
    if value is None or isinstance(value, base):
        return value  # type: ignore[return-value]  # the base of the registry's classes
    if isinstance(value, type) and issubclass(value, base):
        raise ChoiceError(f"{value.__name__} is a class; give one made from it, such as {value.__name__}()")
    if not isinstance(value, str):
        raise ChoiceError(
            f"{registry.kind} is a name, an object of statprune.{base.__name__}, or None, and this is {_kind(value)}"
        )
    if value == nothing:
        return None
    if value not in registry:
        raise ChoiceError(registry.unknown(value, (nothing,)))
    return built(registry.get(value), {}, f"{registry.kind}.")


def read_names(value: object, argument: str) -> tuple[str, ...]:
    """Names from one text or several.

    Raises:
        ChoiceError: they are no texts.
    """
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ChoiceError(f"{argument} is a name or a list of names, and this is {value!r}")
    return names


def check_expressions(expressions: object, argument: str) -> tuple[str, ...]:
    """Regular expressions from a list of them.

    Raises:
        ConfigError: with everything wrong with them.
    """
    if isinstance(expressions, str):
        raise ConfigError([f"{argument} is one text; give a list of regular expressions, [{expressions!r}]"])
    names = read_names(expressions, argument)
    if problems := expression_problems(names, argument):
        raise ConfigError(problems)
    return names


def check_count(value: object, argument: str, least: int = 1) -> None:
    """Raise ChoiceError unless the value is None or a whole number of at least ``least``."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ChoiceError(f"{argument}={value!r} is no whole number of at least {least}; give one, or leave it out")


def _kind(value: object) -> str:
    name = getattr(value, "__name__", None)
    return f"the {type(value).__name__} {name}" if isinstance(name, str) else f"of the type {type(value).__name__}"
