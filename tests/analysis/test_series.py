"""Which runs form a series, their means and deviations, and Pareto fronts, against plain loops."""

import itertools
import math

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statprune.analysis.series import (
    kind_of,
    name_series,
    over_seeds,
    pareto_front,
    pareto_table,
    perplexities,
    sensitivity_table,
    sparsity_table,
    varied_keys,
)
from statprune.errors import StatpruneError
from tests.helpers.rows import PROTOCOL, many_rows, row


@pytest.fixture
def frame():
    return many_rows()


def test_series_are_told_apart_by_what_differs_within_a_label(frame):
    rows = frame[frame.method != "dense"]
    names = set(name_series(rows, rows.pattern.map(kind_of)))
    assert names == {
        *("magnitude", "wanda", "wanda, 2:4", "wanda + energy", "cvr + energy"),
        *("cvr, method.alpha=0", "cvr, method.alpha=0.5", "cvr, method.alpha=1"),
    }


def test_series_are_told_apart_by_what_their_perplexities_were_measured_on():
    rows = pandas.DataFrame([row(), row(protocol=PROTOCOL | {"seq_len": 128})])
    assert list(name_series(rows, rows.pattern)) == ["wanda, seq_len=64", "wanda, seq_len=128"]


def test_a_key_is_varied_where_it_differs_within_a_label_and_pattern(frame):
    assert varied_keys(frame) == ["method.alpha"]


def test_patterns_of_all_ratios_are_of_one_kind():
    patterns = ["0.5", "owl0.55", "2:4", "given"]
    assert list(map(kind_of, patterns)) == ["", "owl", "2:4", "given"]


@pytest.mark.parametrize("label,pattern", itertools.product(("magnitude", "wanda", "cvr + energy"), ("0.5", "0.6")))
def test_points_are_means_and_sample_deviations_over_seeds(label, pattern, frame):
    values = [r.pruned for r in frame.itertuples() if r.label == label and r.pattern == pattern]
    mean = sum(values) / len(values)
    point = sparsity_table(frame).set_index(["name", "x"]).loc[(label, float(pattern))]
    assert point["mean"] == pytest.approx(mean) and point.seeds == 2
    assert point.deviation == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def test_a_single_seed_has_no_deviation(frame):
    point = sparsity_table(frame).set_index(["name", "x"]).loc[("wanda, 2:4", 0.5)]
    assert math.isnan(point.deviation) and point.seeds == 1


def test_series_are_in_the_registrys_order(frame):
    names = list(dict.fromkeys(sparsity_table(frame).name))
    assert names[0] == "magnitude" and names[-1].startswith("cvr")


def test_a_run_made_again_is_no_further_seed(frame):
    once = sparsity_table(frame).set_index(["name", "x"])
    twice = sparsity_table(pandas.concat([frame, frame], ignore_index=True)).set_index(["name", "x"])
    pandas.testing.assert_frame_equal(twice, once)


def test_a_value_that_is_not_finite_is_no_point():
    rows = pandas.DataFrame([row(seed=0), row(seed=1, pruned=math.nan), row(seed=2, pruned=60.0)])
    (point,) = over_seeds(rows, rows.label, rows.achieved, rows.pruned).itertuples()
    assert (point.mean, point.seeds) == (55.0, 2)


def test_ratios_that_blocks_have_of_their_own_are_drawn_at_what_was_achieved():
    rows = [row(pattern="given", achieved=x, **{"sparsity.layer_ratios": [x]}) for x in (0.4, 0.6)]
    assert list(sparsity_table(pandas.DataFrame(rows)).x) == [0.4, 0.6]


def test_sensitivity_takes_numbers():
    runs = [row(seed=seed, pruned=60 - n, **{"calibration.samples": n}) for n in (1, 2, 4) for seed in (0, 1)]
    table = sensitivity_table(pandas.DataFrame(runs), "calibration.samples")
    assert list(table.x) == [1.0, 2.0, 4.0] and list(table["mean"]) == [59, 58, 56] and set(table.name) == {"wanda"}


def test_sensitivity_takes_words():
    words = pandas.DataFrame([row(propagation="pruned"), row(propagation="dense")])
    assert list(sensitivity_table(words, "propagation").x) == ["dense", "pruned"]


def test_sensitivity_takes_switches():
    switch = pandas.DataFrame([row(**{"method.statistic_calibration": value}) for value in (True, False)])
    assert list(sensitivity_table(switch, "method.statistic_calibration").x) == ["false", "true"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points):
    first, second = (pandas.Series(column, dtype=float) for column in zip(*points, strict=True))
    for (a, b), is_best in zip(points, pareto_front(first, second), strict=True):
        assert is_best == (not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points))


def test_pareto_holds_quality_against_all_seconds_of_pruning(frame):
    table = pareto_table(frame)
    wanda = table[(table.name == "wanda") & (table.pattern == "0.5")].iloc[0]
    assert wanda.seconds == pytest.approx(2 + 0.6 + 0.5) and wanda.perplexity == 60.5


def test_a_slower_and_worse_method_is_not_on_the_front(frame):
    table = pareto_table(frame)
    assert not table[(table.name == "magnitude") & (table.pattern == "0.6")].is_best.any()


def test_pareto_has_a_front_for_each_pattern(frame):
    table = pareto_table(frame)
    assert set(table.pattern) == {"0.5", "0.6", "2:4"} == set(table[table.is_best].pattern)


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("threads", 1, r"runs with different threads \(1, 2\) can't be compared"),
        ("reused_statistics", True, "1 of 2 runs used the calibration pass of another"),
    ],
)
def test_seconds_that_are_not_comparable_are_refused(key, value, message):
    with pytest.raises(StatpruneError, match=message):
        pareto_table(pandas.DataFrame([row(), row(seed=1, **{key: value})]))


def test_perplexities_of_no_run_are_refused():
    with pytest.raises(StatpruneError, match="no run to draw"):
        perplexities(pandas.DataFrame(), "bundled")
