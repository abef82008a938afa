"""One matrix through the stages that change it: solve → refine → compensate."""

from torch import Tensor

from statprune.core.finite import check_finite
from statprune.core.patterns import Pattern
from statprune.core.solution import Diagnostics
from statprune.core.statistics import InputStatistics
from statprune.pruning.spec import PruneSpec


def solved(dense: Tensor, statistics: InputStatistics, pattern: Pattern, spec: PruneSpec) -> tuple[Tensor, Diagnostics]:
    """The pruned weight, and the numbers that the stages report.

    Args:
        dense: (out_features, in_features), float32 or float64; it is not changed.
        statistics: of its input, of the kind that the stages need.
        pattern: of this matrix.
        spec: names the stages.

    Raises:
        ValueError: a stage can't do its part, or weights or inputs are not finite.
    """
    check_finite(dense, statistics)
    solution = spec.method.solve(dense, statistics, pattern)
    numbers = dict(solution.diagnostics)
    if spec.refinement is not None:
        solution = spec.refinement.refine(dense, solution, statistics, pattern)
        numbers |= solution.diagnostics
    weight = solution.weight
    if spec.compensation is not None:
        weight, changes = spec.compensation.apply(dense, weight, solution.keep, statistics)
        numbers |= changes
    return weight, numbers
