"""Refinement: after a method has chosen a mask, a better one with as many kept weights."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from statprune.core.patterns import Pattern
from statprune.core.solution import Solution
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.system.registry import Registry, subclass_of


class Refinement(ABC):
    """A change of the mask that keeps its counts; a frozen dataclass of its options, the keys ``refinement.*``.

    Attributes:
        exclude: regular expressions; a matrix whose full name one of them is found in keeps the method's mask. A
            refinement that has this option declares the field.
    """

    exclude: tuple[str, ...] = ()

    def refines(self, name: str) -> bool:
        """Whether the matrix of that full name is refined."""
        return not any(re.search(expression, name) for expression in self.exclude)

    def problem_of_names(self, names: Sequence[str]) -> str | None:
        """A sentence about expressions that are found in none of the matrices' full names, or None."""
        unused = [expression for expression in self.exclude if not any(re.search(expression, name) for name in names)]
        if not unused:
            return None
        return f"refinement.exclude: {', '.join(unused)} is found in no pruned matrix's name; names are like {names[0]}"

    @property
    def needs(self) -> StatisticsKind:
        """The input statistics that ``refine`` reads."""
        return StatisticsKind.MOMENTS

    @property
    def samples(self) -> int:
        """How many rows of each input ``refine`` wants to see."""
        return 0

    def problem(self, pattern: Pattern) -> str | None:
        """Why the refinement can't have this pattern, in a sentence, or None."""
        return None

    @abstractmethod
    def refine(self, dense: Tensor, solution: Solution, statistics: InputStatistics, pattern: Pattern) -> Solution:
        """A solution with another mask.

        Args:
            dense: original weight, (out_features, in_features), float32 or float64; it is not changed.
            solution: the method's; it is not changed.
            statistics: of the matrix's input.
            pattern: that the mask has, and has to have: as many weights are kept in each of its groups.
        """


REFINEMENTS: Registry[type[Refinement]] = Registry(
    "refinement",
    "statprune.refinements",
    {"swaps": "statprune.core.swaps:Swaps", "dsnot": "statprune.core.dsnot:DSnoT"},
    subclass_of(Refinement),
    reserved=("none",),
)


def no_exchange(refinement: str, pattern: Pattern) -> str | None:
    """A sentence about a refinement that exchanges weights, and a pattern that does not say where it may; or None.

    Args:
        refinement: its name.
        pattern: of the mask.
    """
    if pattern.exchange_span(1) is not None:
        return None
    return (
        f"refinement={refinement} exchanges weights within a row, and the pattern {type(pattern).__name__} does not "
        "say where it may; give the pattern an exchange_span, or choose refinement=none"
    )
