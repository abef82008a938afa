"""What a pruned matrix has to be, whoever pruned it."""

import torch
from torch import Tensor

from statprune.core.patterns import Pattern
from statprune.core.solution import Solution
from statprune.testing.counts import count_problem
from statprune.testing.rules import check_tensor, fail, identical, require


def check_solution(solution: object, dense: Tensor, pattern: Pattern, what: str) -> Solution:
    """Raise AssertionError unless it is a solution for the dense weight, with exactly the pattern's counts.

    Args:
        solution: to check.
        dense: the weight that was pruned.
        pattern: that the mask has to have.
        what: returned it, and where: for the sentence.
    """
    if not isinstance(solution, Solution):
        fail(f"{what} returns {type(solution).__name__}; return statprune.Solution(weight, keep, diagnostics)")
    check_tensor(solution.keep, dense, f"the mask that {what} returns", torch.bool)
    check_tensor(solution.weight, dense, f"the weight that {what} returns")
    if problem := count_problem(pattern, solution.keep):
        fail(f"{what} {problem}")
    require(
        not bool(solution.weight[~solution.keep].any()),
        f"{what} leaves weights that are not zero where the mask is False",
    )
    check_diagnostics(solution.diagnostics, what)
    return solution


def check_diagnostics(diagnostics: object, what: str) -> None:
    """Raise AssertionError unless they are numbers by name; a number may be NaN, which a report shows as missing."""
    if not isinstance(diagnostics, dict):
        fail(f"{what} returns diagnostics that are {type(diagnostics).__name__}; return a dictionary, {{}} for none")
    for name, value in diagnostics.items():
        is_number = isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0)
        require(
            isinstance(name, str) and is_number, f"{what} returns the diagnostic {name!r}, which is no single number"
        )


def check_same(first: Solution, second: Solution, what: str) -> None:
    """Raise AssertionError unless two calls with the same arguments returned the same."""
    is_same = identical(first.keep, second.keep) and identical(first.weight, second.weight)
    require(is_same, f"{what} returns something else when it is called again; take no random numbers without a seed")
