"""Methods that divide by the inputs' squares refuse inputs whose squares are lost."""

import pytest

from statprune.core.methods import get_method
from statprune.core.patterns import Group, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.alternating import correlated


@pytest.mark.parametrize("method", ["alps", "admm"])
@pytest.mark.parametrize(("scale", "message"), [(1e-30, "squares vanish"), (1e30, "not finite")])
def test_inputs_whose_squares_are_lost_are_refused(method, scale, message):
    weight, inputs, _ = correlated()
    statistics = InputStatistics(8, StatisticsKind.GRAM)  # products in float32
    statistics.update(inputs * scale)
    with pytest.raises(ValueError, match=message):
        get_method(method).solve(weight, statistics, Unstructured(0.5, Group.matrix))
