"""Checks of scores and methods."""

from collections.abc import Sequence

from torch import Tensor

from statprune.core.methods import Method, ScoreMethod
from statprune.core.patterns import Pattern
from statprune.core.score import Score
from statprune.core.statistics import StatisticsKind
from statprune.testing.cases import COLUMNS, PATTERNS, Case, cases, fitting, usual_case
from statprune.testing.rules import Unchanged, called, check_options, check_tensor, fail, identical, require
from statprune.testing.solutions import check_same, check_solution


def check_score(score: Score, options: object = None, patterns: Sequence[Pattern] = PATTERNS) -> None:
    """Check a score: shape, dtype and device of what it returns, finite, the same again, arguments left as they are.

    The masks that patterns select by it are counted, too, and ``needs`` has to name all statistics that it reads.

    Args:
        score: the decorated function.
        options: an instance of its options; None: with the defaults.
        patterns: that masks are selected with.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(score, Score):
        fail(f"check_score was given {type(score).__name__}; write @statprune.score() above the function")
    options = called(f"{score.options.__name__}()", score.options) if options is None else options
    require(
        type(options) is score.options,
        f"the options are {type(options).__name__}, but the score takes {score.options.__name__}",
    )
    check_options(options, "method.")
    name = f"the score {score.function.__qualname__}"
    for case in cases(score.needs):
        _check_score_of(score, options, case, f"{name} of {case.label}")
    few, all_there = usual_case(score.needs), usual_case(StatisticsKind.GRAM)
    same = identical(score(few.weight, few.statistics, options), score(few.weight, all_there.statistics, options))
    require(same, _needs_more(name, score.needs))
    check_method(ScoreMethod(score, options), patterns)


def _check_score_of(score: Score, options: object, case: Case, what: str) -> None:
    unchanged = Unchanged(what, {"weight": case.weight, "statistics": case.statistics})

    def scored() -> Tensor:
        value = called(what, lambda: score(case.weight, case.statistics, options))
        return check_tensor(value, case.weight, what).clone()

    first = scored()
    unchanged.check()
    require(
        identical(first, scored()),
        f"{what} is something else when it is asked for again; take no random numbers without a seed",
    )
    unchanged.check()


def check_method(method: Method, patterns: Sequence[Pattern] = PATTERNS) -> None:
    """Check a method: exact counts of every pattern, zeros where the mask is False, finite, deterministic.

    Its arguments have to be as before, and ``needs`` has to name all statistics that it reads.

    Args:
        method: an instance.
        patterns: to prune with; those that ``method.problem`` refuses are left out.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(method, Method):
        fail(f"check_method was given {type(method).__name__}; give an instance of a subclass of statprune.Method")
    name = type(method).__name__
    if isinstance(method, ScoreMethod):
        name = f"the method of the score {method.score.function.__qualname__}"
    else:
        check_options(method, "method.")
    chosen = [pattern for pattern in fitting(patterns, COLUMNS) if method.problem(pattern) is None]
    require(bool(chosen), f"{name} refuses every pattern that it is checked with; give check_method other patterns")
    for case in cases(method.needs):
        for pattern in chosen:
            _check_method_on(method, case, pattern, f"{name} on {case.label} with {pattern}")
    few, all_there = usual_case(method.needs), usual_case(StatisticsKind.GRAM)
    first = method.solve(few.weight, few.statistics, chosen[0])
    second = method.solve(few.weight, all_there.statistics, chosen[0])
    require(identical(first.weight, second.weight), _needs_more(name, method.needs))


def _check_method_on(method: Method, case: Case, pattern: Pattern, what: str) -> None:
    unchanged = Unchanged(what, {"weight": case.weight, "statistics": case.statistics})
    first = called(what, lambda: method.solve(case.weight, case.statistics, pattern))
    check_solution(first, case.weight, pattern, what)
    unchanged.check()
    check_same(first, called(what, lambda: method.solve(case.weight, case.statistics, pattern)), what)


def _needs_more(name: str, needs: StatisticsKind) -> str:
    return f"{name} reads more of the statistics than needs=StatisticsKind.{needs.name} says; name the kind it reads"
