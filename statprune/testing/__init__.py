"""Checks for the author of a plugin: each raises AssertionError, with a sentence, where an object breaks a rule.

They need no test framework, take seconds, and use a CUDA device beside the CPU where there is one:

    from statprune.testing import check_score
    from my_package.scores import my_score

    def test_my_score():
        check_score(my_score)
"""

from statprune.testing.allocations import check_allocation
from statprune.testing.compensations import check_compensation
from statprune.testing.methods import check_method, check_score
from statprune.testing.patterns import check_pattern
from statprune.testing.refinements import check_refinement
from statprune.testing.sources import check_source

__all__ = [
    "check_allocation",
    "check_compensation",
    "check_method",
    "check_pattern",
    "check_refinement",
    "check_score",
    "check_source",
]
