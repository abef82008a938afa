"""How long the block loop holds input statistics: a Gram matrix and its factor are as large as a few weights."""

import weakref

import torch

from statprune.core.methods import Method
from statprune.core.patterns import Unstructured
from statprune.core.solution import Solution
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneRuntime, PruneSpec
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16, lowest=0)


class Watching(Method):
    """A method that leaves the weights, and counts the statistics that are in memory when it is asked."""

    needs = StatisticsKind.GRAM

    def __init__(self):
        self.alive, self._seen = [], weakref.WeakSet()

    def solve(self, weight, statistics, pattern):
        self._seen.add(statistics)
        self.alive.append(len(self._seen))
        return Solution(weight, torch.ones_like(weight, dtype=torch.bool), {})


def test_statistics_are_gone_once_no_matrix_needs_them():
    method = Watching()
    prune(tiny_llama(), WINDOWS, PruneSpec(method, Unstructured(0.5)))
    assert method.alive == [1] * len(method.alive)


def test_statistics_of_the_dense_model_stay_for_the_next_run():
    method, collected = Watching(), DenseStatistics(StatisticsKind.GRAM)
    spec, model = PruneSpec(method, Unstructured(0.5), propagation=Propagation.dense), tiny_llama()
    for _ in range(2):
        prune(model, WINDOWS, spec, PruneRuntime(statistics=collected))
    different = {id(each) for block in collected.blocks.values() for each in block.values()}
    assert method.alive[-1] == len(different)
