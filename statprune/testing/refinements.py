"""Check of refinements."""

from collections.abc import Sequence

from statprune.core.methods import Method, get_method
from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement
from statprune.testing.cases import COLUMNS, PATTERNS, Case, cases, fitting
from statprune.testing.rules import Unchanged, called, check_options, fail, require
from statprune.testing.solutions import check_same, check_solution


def check_refinement(
    refinement: Refinement, method: Method | None = None, patterns: Sequence[Pattern] = PATTERNS
) -> None:
    """Check a refinement: as many kept weights in each group as before, zeros elsewhere, finite, deterministic.

    Its arguments have to be as before.

    Args:
        refinement: an instance.
        method: whose masks are refined; None: magnitude.
        patterns: of the masks.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(refinement, Refinement):
        fail(f"check_refinement was given {type(refinement).__name__}; give an instance of a statprune.Refinement")
    check_options(refinement, "refinement.")
    require(refinement.samples >= 0, f"{type(refinement).__name__}.samples is negative; give a number of rows")
    method = method or get_method("magnitude")
    fit = fitting(patterns, COLUMNS)
    chosen = [pattern for pattern in fit if method.problem(pattern) is None and refinement.problem(pattern) is None]
    for case in cases(max(method.needs, refinement.needs)):
        for pattern in chosen:
            what = f"{type(refinement).__name__} on {case.label} with {pattern}"
            _check_refinement_on(refinement, method, case, pattern, what)


def _check_refinement_on(refinement: Refinement, method: Method, case: Case, pattern: Pattern, what: str) -> None:
    solution = method.solve(case.weight, case.statistics, pattern)
    unchanged = Unchanged(
        what,
        {
            "dense": case.weight,
            "solution.weight": solution.weight,
            "solution.keep": solution.keep,
            "statistics": case.statistics,
        },
    )
    first = called(what, lambda: refinement.refine(case.weight, solution, case.statistics, pattern))
    check_solution(first, case.weight, pattern, what)
    unchanged.check()
    check_same(first, called(what, lambda: refinement.refine(case.weight, solution, case.statistics, pattern)), what)
