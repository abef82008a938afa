"""Means, deviations and paired bootstrap intervals against SciPy and hand-worked cases."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from statprune.analysis.uncertainty import Interval, mean_and_deviation, paired_bootstrap


def test_mean_and_deviation_are_the_textbooks():
    mean, deviation = mean_and_deviation([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3) and deviation == pytest.approx((7 / 3) ** 0.5)


def test_a_single_value_has_no_deviation():
    assert mean_and_deviation([3.0]) == (3.0, None)


def test_identical_runs_differ_by_exactly_nothing():
    units = numpy.random.default_rng(0).normal(size=40)
    assert paired_bootstrap([units], [units.copy()]) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "low,high,is_apart", [(0.0, 0.0, False), (-1.0, 1.0, False), (0.5, 1.0, True), (-1.0, -0.5, True)]
)
def test_an_interval_is_apart_where_it_does_not_hold_zero(low, high, is_apart):
    assert Interval((low + high) / 2, low, high).is_apart == is_apart


def test_an_interval_is_scipys():
    draw = numpy.random.default_rng(1)
    first = draw.normal(size=50)
    second = first + draw.normal(0.3, 1.0, size=50)
    ours = paired_bootstrap([first], [second], resamples=40_000)
    theirs = stats.bootstrap(
        (second - first,), numpy.mean, n_resamples=40_000, method="percentile", rng=numpy.random.default_rng(2)
    ).confidence_interval
    assert ours.difference == pytest.approx((second - first).mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_tasks_weigh_alike_however_many_documents_they_have():
    few, many = numpy.zeros(10), numpy.zeros(1000)
    ours = paired_bootstrap([few, many], [few + 1, many])
    assert ours == Interval(0.5, 0.5, 0.5) and ours.is_apart


def test_documents_are_drawn_within_their_task():
    draw = numpy.random.default_rng(3)
    pairs = [(draw.normal(size=n), draw.normal(size=n)) for n in (30, 300)]
    ours = paired_bootstrap(*map(list, zip(*pairs, strict=True)))
    spread = sum((b - a).var() / len(a) for a, b in pairs) ** 0.5 / 2
    assert ours.high - ours.low == pytest.approx(2 * 1.96 * spread, rel=0.05)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.floats(-3, 3))
def test_a_constant_difference_has_no_spread(values, shift):
    units = numpy.array(values)
    interval = paired_bootstrap([units], [units + shift], resamples=200)
    assert (interval.low, interval.high) == pytest.approx((shift, shift), abs=1e-9)


def test_units_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="same windows or documents"):
        paired_bootstrap([numpy.zeros(3)], [numpy.zeros(4)])
