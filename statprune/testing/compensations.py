"""Check of compensations."""

from collections.abc import Sequence

from statprune.core.compensation import Compensation
from statprune.core.methods import get_method
from statprune.core.patterns import Pattern
from statprune.core.solution import Solution
from statprune.system.options import option_names
from statprune.testing.cases import COLUMNS, PATTERNS, Case, cases, fitting
from statprune.testing.rules import Unchanged, called, check_options, check_tensor, fail, require
from statprune.testing.solutions import check_diagnostics, check_same


def check_compensation(compensation: Compensation, patterns: Sequence[Pattern] = PATTERNS) -> None:
    """Check a compensation: pruned weights stay exact zeros, the others are finite, deterministic.

    Its arguments have to be as before.

    Args:
        compensation: an instance.
        patterns: of the masks, which are chosen by magnitude.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(compensation, Compensation):
        fail(
            f"check_compensation was given {type(compensation).__name__}; give an instance of a statprune.Compensation"
        )
    check_options(compensation, "compensation.")
    _check_names(compensation)
    for case in cases(compensation.needs):
        for pattern in fitting(patterns, COLUMNS):
            _check_on(compensation, case, pattern, f"{type(compensation).__name__} on {case.label} with {pattern}")


def _check_names(compensation: Compensation) -> None:
    name = type(compensation).__name__
    require(compensation.samples >= 0, f"{name}.samples is negative; give a number of rows")
    unknown = sorted({*compensation.named_options} - {*option_names(type(compensation))})
    require(not unknown, f"{name}.named_options has {', '.join(unknown)}, which is no option")
    require(
        all(isinstance(word, str) for word in compensation.variant()), f"{name}.variant() returns something but texts"
    )
    label = compensation.label("name")
    require(isinstance(label, str) and bool(label), f"{name}.label() returns no text; a table needs one")


def _check_on(compensation: Compensation, case: Case, pattern: Pattern, what: str) -> None:
    pruned = get_method("magnitude").solve(case.weight, case.statistics, pattern)
    unchanged = Unchanged(
        what,
        {"dense": case.weight, "pruned": pruned.weight, "keep": pruned.keep, "statistics": case.statistics},
    )

    def applied() -> Solution:
        result = called(what, lambda: compensation.apply(case.weight, pruned.weight, pruned.keep, case.statistics))
        if not (isinstance(result, tuple) and len(result) == 2):
            fail(f"{what} returns {type(result).__name__}; return (weight, diagnostics)")
        unchanged.check()
        weight, diagnostics = result
        check_tensor(weight, case.weight, f"the weight that {what} returns")
        check_diagnostics(diagnostics, what)
        is_zero = not bool(weight[~pruned.keep].any())
        require(is_zero, f"{what} makes pruned weights other than zero; multiply the result by the mask")
        return Solution(weight.clone(), pruned.keep, diagnostics)

    check_same(applied(), applied(), what)
