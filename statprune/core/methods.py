"""The registry of methods: each turns (weight, statistics, pattern) into a pruned weight with its mask."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from statprune.core.patterns import Group, Pattern
from statprune.core.scores import SCORES
from statprune.core.solution import Solution
from statprune.core.sparsegpt import CUSTOMARY_GROUP, SparseGPT, SparseGPTOptions
from statprune.core.statistics import InputStatistics, StatisticsKind


class Method(Protocol):
    """A pruning method."""

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that ``solve`` reads."""

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Prune one weight of shape (out_features, in_features), float32 or float64."""


@dataclass(frozen=True)
class ScoreMethod:
    """Score → select → mask: every method that leaves the kept weights as they are.

    Attributes:
        name: a key of ``scores.SCORES``.
        options: an instance of that score's options dataclass.
    """

    name: str
    options: Any = field(default=None)

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that the score reads."""
        return SCORES[self.name].needs

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Zero what the pattern does not select by the score; diagnostics: the score's least, mean and largest."""
        score = SCORES[self.name].function(weight, statistics, self.options)
        keep = pattern.select(score)
        diagnostics = {"score_min": score.min(), "score_mean": score.mean(), "score_max": score.max()}
        return Solution(weight * keep.to(weight.dtype), keep, {**diagnostics})


def method_names() -> list[str]:
    """Names of all pruning methods."""
    return [*SCORES, "sparsegpt"]


def options_class(name: str) -> type:
    """The dataclass whose fields are the method's configuration keys."""
    return SparseGPTOptions if name == "sparsegpt" else SCORES[name].options


def customary_group(name: str) -> Group:
    """The comparison group of the method's authors, used where the user names none."""
    return CUSTOMARY_GROUP if name == "sparsegpt" else SCORES[name].group


def get_method(name: str, **options: object) -> Method:
    """The method called ``name``.

    Args:
        name: one of ``method_names()``.
        **options: fields of ``options_class(name)``.

    Raises:
        ValueError: no such method, or an option outside its range.
        TypeError: an option the method does not have.
    """
    if name not in method_names():
        raise ValueError(f"method {name!r} is unknown; choose one of {', '.join(method_names())}")
    values = options_class(name)(**options)
    return SparseGPT(values) if name == "sparsegpt" else ScoreMethod(name, values)
