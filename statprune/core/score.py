"""What a score is, and the registry of scores: a decorated function with a dataclass of options."""

import functools
import typing
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor

from statprune.core.patterns import Group
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import PluginError
from statprune.system.registry import Registry

DENSE = "dense"  # in a method's place: nothing is pruned
OWN_SCORES = ("magnitude", "wanda", "ria", "cvr", "stade", "stade_w")


@dataclass(frozen=True)
class NoOptions:
    """A score without parameters."""


@dataclass(frozen=True)
class Score:
    """A score: call it as the function it was made from.

    Attributes:
        function: (weight, statistics, options) → score, all of shape (out_features, in_features); higher is kept.
        needs: the statistics that the function reads.
        options: dataclass of its parameters; its fields are the keys ``method.*``, with their defaults.
        group: the comparison group that its authors use for unstructured sparsity.
    """

    function: Callable[[Tensor, InputStatistics, Any], Tensor]
    needs: StatisticsKind = StatisticsKind.MOMENTS
    options: type = NoOptions
    group: Group = Group.row

    def __post_init__(self) -> None:
        for name in ("__module__", "__qualname__", "__doc__"):  # where it is defined, and what help says of it
            object.__setattr__(self, name, getattr(self.function, name))

    def __call__(self, weight: Tensor, statistics: InputStatistics, options: object = None) -> Tensor:
        """The score of a weight.

        Args:
            weight: (out_features, in_features), float32 or float64; it is not changed.
            statistics: of the weight's input.
            options: an instance of ``options``; None: with the defaults.
        """
        return self.function(weight, statistics, self.options() if options is None else options)


def _score_problem(value: object) -> str | None:
    return None if isinstance(value, Score) else "it is no score; write @statprune.score() above the function"


SCORES: Registry[Score] = Registry(
    "score",
    "statprune.scores",
    {name: f"statprune.core.scores:{name}" for name in OWN_SCORES},
    _score_problem,
    reserved=(DENSE,),
)


def score(
    name: str | None = None, *, needs: StatisticsKind = StatisticsKind.MOMENTS, group: Group = Group.row
) -> Callable[[Callable[..., Tensor]], Score]:
    """Make a function a score, and register it.

    The function takes (weight, statistics), or (weight, statistics, options) with a frozen dataclass as annotation of
    ``options``: its fields are the score's keys in the configuration, and their defaults and docstring are its help.

    Args:
        name: for ``method=``; None: the function's name.
        needs: the statistics that the function reads.
        group: what weights are compared within where the user does not say.

    Raises:
        PluginError: another score has the name, or the options are no dataclass.
    """

    def decorated(function: Callable[..., Tensor]) -> Score:
        if function.__code__.co_argcount == 2:
            made = Score(_without_options(function), needs, NoOptions, group)
        else:
            made = Score(function, needs, _options_of(function), group)
        return SCORES.register(name or function.__name__, made)

    return decorated


def _options_of(function: Callable[..., Tensor]) -> type:
    """The dataclass that annotates a score's last parameter."""
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    options = typing.get_type_hints(function).get(parameters[-1]) if len(parameters) == 3 else None
    if not (isinstance(options, type) and is_dataclass(options)):
        raise PluginError(
            f"the score {function.__qualname__} needs the parameters (weight, statistics), or (weight, "
            "statistics, options: Options) with a frozen dataclass Options"
        )
    return options


def _without_options(function: Callable[..., Tensor]) -> Callable[[Tensor, InputStatistics, Any], Tensor]:
    @functools.wraps(function)
    def scored(weight: Tensor, statistics: InputStatistics, options: object) -> Tensor:
        return function(weight, statistics)

    return scored
