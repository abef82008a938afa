"""The registry of methods: each turns (weight, statistics, pattern) into a pruned weight with its mask."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statprune.core.patterns import NOT_FINITE, Group, Pattern
from statprune.core.score import DENSE, SCORES, Score
from statprune.core.solution import Solution
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ChoiceError, PluginError
from statprune.system.options import built
from statprune.system.registry import Origin, Registry, subclass_of


class Method(ABC):
    """A pruning method: a frozen dataclass of its options, which are the keys ``method.*``."""

    @property
    def group(self) -> Group:
        """What weights are compared within where the user does not say."""
        return Group.row

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that ``solve`` reads."""
        return StatisticsKind.MOMENTS

    @property
    def sampled_rows(self) -> int:
        """How many rows of each input ``solve`` wants to see."""
        return 0

    @property
    def working_copies(self) -> int:
        """How many arrays of a matrix's size ``solve`` holds at once, for the prediction of memory [float32 arrays].

        The dense weight, the pruned one, the score, and what selecting takes.
        """
        return 6

    @property
    def gram_copies(self) -> int:
        """How many arrays of the Gram matrix's size it holds beside that, in float32; one in float64 counts twice."""
        return 7 if self.needs >= StatisticsKind.GRAM else 0

    def unseen(self, rows: Tensor) -> Tensor:
        """Those of an input's sampled rows that ``solve`` does not fit the weights to: an output error is of these.

        Args:
            rows: (samples, in_features).
        """
        return rows

    @abstractmethod
    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Prune one weight of shape (out_features, in_features), float32 or float64, which is not changed."""

    def problem(self, pattern: Pattern) -> str | None:
        """Why the method can't have this pattern, in a sentence, or None."""
        return None


METHODS: Registry[type[Method]] = Registry(
    "method",
    "statprune.methods",
    {
        "sparsegpt": "statprune.core.sparsegpt:SparseGPT",
        "alps": "statprune.core.alps:Alps",
        "admm": "statprune.core.admm:Admm",
    },
    subclass_of(Method),
    reserved=(DENSE, "sampled_admm"),
)


@dataclass(frozen=True)
class ScoreMethod(Method):
    """Score → select → mask: every method that leaves the kept weights as they are.

    Attributes:
        score: the score.
        options: an instance of the score's options.
    """

    score: Score
    options: Any

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that the score reads."""
        return self.score.needs

    @property
    def group(self) -> Group:
        """The comparison group of the score's authors."""
        return self.score.group

    def solve(self, weight: Tensor, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """Zero what the pattern does not select by the score; diagnostics: the score's least, mean and largest.

        Raises:
            ValueError: the score is not finite; on a GPU nothing is raised, and the mean is NaN.
        """
        score = self.score(weight, statistics, self.options)
        keep = pattern.select(score)
        largest = score.max()
        if not score.is_cuda and largest.isinf():
            raise ValueError(NOT_FINITE)
        mean = torch.where(largest.isinf(), torch.nan, score.mean())  # infinite scores are all alike
        diagnostics = {"score_min": score.min(), "score_mean": mean, "score_max": largest}
        return Solution(weight * keep.to(weight.dtype), keep, {**diagnostics})


def method_names() -> list[str]:
    """Names of all pruning methods, of those that score and of those that solve: ours, then those of plugins."""
    names = list(dict.fromkeys((*SCORES.names(), *METHODS.names())))
    own = [name for name in names if SCORES.is_own(name) or METHODS.is_own(name)]
    return own + [name for name in names if name not in own]


def unknown_method(name: str) -> str:
    """A sentence about a name that no method has."""
    return METHODS.unknown(name, (*SCORES.names(), DENSE))


def options_class(name: str) -> type:
    """The dataclass whose fields are the method's configuration keys.

    Raises:
        ChoiceError: there is no such method.
    """
    return SCORES.get(name).options if _is_score(name) else _method(name)


def method_origin(name: str) -> Origin:
    """Where the method comes from."""
    return SCORES.origin(name) if _is_score(name) else METHODS.origin(name)


def make_method(name: str, options: object) -> Method:
    """The method called ``name``.

    Args:
        name: one of ``method_names()``.
        options: an instance of ``options_class(name)``.
    """
    if _is_score(name):
        return ScoreMethod(SCORES.get(name), options)
    assert isinstance(options, Method)  # its class is that of its options
    return options


def get_method(name: str, **options: object) -> Method:
    """The method called ``name``.

    Args:
        name: one of ``method_names()``.
        **options: fields of ``options_class(name)``.

    Raises:
        ChoiceError: there is no such method or option, or an option's value is out of range.
        PluginError: the plugin that has the method can't be imported.

    Examples:
        >>> from statprune import get_method
        >>> get_method("sparsegpt", damping=0.1)
        SparseGPT(damping=0.1, block_size=128)
        >>> get_method("cvr", alfa=1)
        Traceback (most recent call last):
        statprune.errors.ChoiceError: method.alfa is not a key; did you mean method.alpha?
    """
    if not isinstance(name, str):
        raise ChoiceError(f"a method is got by its name, and {name!r} is none; give one of {', '.join(method_names())}")
    if name == DENSE:
        raise ChoiceError(f"{DENSE} is no method that prunes; give one of {', '.join(method_names())}")
    return make_method(name, built(options_class(name), options, "method."))


def _is_score(name: str) -> bool:
    """Whether the method is a score.

    Raises:
        PluginError: a score and a method have the name.
    """
    if name in SCORES and name in METHODS:
        raise PluginError(
            f"method={name} is two things: {SCORES.described(name)} and {METHODS.described(name)}; "
            "rename one of them, or uninstall it"
        )
    return name in SCORES


def _method(name: str) -> type[Method]:
    if name not in METHODS:
        raise ChoiceError(unknown_method(name))
    return METHODS.get(name)
