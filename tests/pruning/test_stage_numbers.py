"""Every number that our stages report of a matrix is described where the record's page is made of."""

import pytest
import torch

from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import METHODS, get_method, method_names
from statprune.core.patterns import Unstructured
from statprune.core.refinement import REFINEMENTS
from statprune.core.score import SCORES
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.pruning.stage_numbers import STAGE_NUMBERS

OWN_METHODS = [name for name in method_names() if SCORES.is_own(name) or METHODS.is_own(name)]
JUDGED = {"relative_output_error", *STAGE_NUMBERS["matrices"]}  # what the report of every matrix has


@pytest.fixture(scope="module")
def problem():
    """A weight, and statistics of an input of 64 tokens."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 12, generator=draw)
    statistics = InputStatistics(12, StatisticsKind.GRAM, sample_index=torch.arange(64))
    statistics.update(rows)
    return torch.randn(6, 12, generator=draw), statistics


def solved(problem, name="wanda"):
    weight, statistics = problem
    return get_method(name).solve(weight, statistics, Unstructured(0.5))


@pytest.mark.parametrize("name", OWN_METHODS)
def test_numbers_of_methods_are_described(name, problem):
    assert solved(problem, name).diagnostics.keys() <= STAGE_NUMBERS["methods"].keys()


@pytest.mark.parametrize("name", [name for name in REFINEMENTS.names() if REFINEMENTS.is_own(name)])
def test_numbers_of_refinements_are_described(name, problem):
    weight, statistics = problem
    refined = REFINEMENTS.get(name)().refine(weight, solved(problem), statistics, Unstructured(0.5))
    assert refined.diagnostics.keys() - solved(problem).diagnostics.keys() <= STAGE_NUMBERS["refinements"].keys()


@pytest.mark.parametrize("name", [name for name in COMPENSATIONS.names() if COMPENSATIONS.is_own(name)])
def test_numbers_of_compensations_are_described(name, problem):
    weight, statistics = problem
    solution = solved(problem)
    _, numbers = COMPENSATIONS.get(name)().apply(weight, solution.weight, solution.keep, statistics)
    assert numbers.keys() - JUDGED <= STAGE_NUMBERS["compensations"].keys()


def test_nothing_is_described_that_no_stage_reports(problem):
    weight, statistics = problem
    solution = solved(problem)
    reported = {key for name in OWN_METHODS for key in solved(problem, name).diagnostics}
    for name in REFINEMENTS.names():
        if REFINEMENTS.is_own(name):
            reported |= (
                REFINEMENTS.get(name)().refine(weight, solution, statistics, Unstructured(0.5)).diagnostics.keys()
            )
    for name in COMPENSATIONS.names():
        if COMPENSATIONS.is_own(name):
            reported |= COMPENSATIONS.get(name)().apply(weight, solution.weight, solution.keep, statistics)[1].keys()
    assert {key for numbers in STAGE_NUMBERS.values() for key in numbers} <= reported
