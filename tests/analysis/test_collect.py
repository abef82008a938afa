"""What is collected of records and what is named instead; statistics against SciPy and hand-worked cases."""

import json
import logging

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statprune.analysis.collect import collect, layers, rows_of, windows
from statprune.analysis.uncertainty import Interval, mean_and_deviation, paired_bootstrap

from statprune.runs.pipeline import run
from tests.helpers.command import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_folder):
    """Four runs: dense, Wanda with two seeds, CVR with energy and rows first."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "dense": ["method=dense"],
        "wanda-0": ["method=wanda", "sparsity='2_4'"],
        "wanda-1": ["method=wanda", "sparsity='2_4'", "seed=1"],
        "cvr": ["method=cvr"],
    }.items():
        run(tiny(tiny_folder, "evaluation.seq_len=16", *changes), folder / name)
    return folder


def test_records_become_rows_with_everything_that_tells_them_apart(runs):
    collected = collect(runs)
    frame = collected.frame.set_index(collected.frame.folder.str.rpartition("/")[2])
    assert collected.skipped == [] and set(frame.index) == {"dense", "wanda-0", "wanda-1", "cvr"}
    for name, row in frame.iterrows():
        record = json.loads((runs / name / "result.json").read_text())
        assert row.pruned == record["metrics"]["perplexity"]["bundled"]["pruned"]
        assert row.protocol["seq_len"] == 16 and row.n == 4
        assert row["seconds.load"] == record["seconds"]["load"]
    assert frame.label.to_dict() == {"dense": "dense", "wanda-0": "wanda", "wanda-1": "wanda", "cvr": "cvr + energy"}
    assert frame.pattern.to_dict() == {"dense": "dense", "wanda-0": "2:4", "wanda-1": "2:4", "cvr": "0.5"}
    assert list(frame.seed) == [0, 0, 0, 1] and frame.loc["cvr", "method.alpha"] == 0.5
    assert frame.loc["cvr", "layers"] == len(layers(runs / "cvr")) == 21 and frame.loc["dense", "layers"] == 0
    unmeasured = json.loads((runs / "cvr" / "result.json").read_text()) | {"metrics": {"perplexity": {}}}
    (bare,) = rows_of(unmeasured, runs / "cvr")
    assert bare["metric"] is None and bare["protocol"]["torch"] == unmeasured["environment"]["packages"]["torch"]
    losses = windows(runs / "cvr")
    assert numpy.exp(losses.pruned_loss.mean()) == pytest.approx(frame.loc["cvr"].pruned)


def test_damaged_old_and_unfinished_records_are_named_and_left_out(runs, tmp_path, caplog):
    record = json.loads((runs / "cvr" / "result.json").read_text())
    changes = {"old": {"schema_version": 0}, "pending": {"pending": {"evaluation": "zero_shot", "model": None}}}
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(record | change))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "result.json").write_text('{"config": ')
    (tmp_path / "bare").mkdir()
    bare = {key: record[key] for key in ("schema_version", "config", "config_hash", "metrics")}
    (tmp_path / "bare" / "result.json").write_text(json.dumps(bare))
    with caplog.at_level(logging.WARNING):
        collected = collect(tmp_path)
    assert collected.frame.empty and len(collected.skipped) == 4
    for name, sentence in zip(("bare", "damaged", "old", "pending"), collected.skipped, strict=True):
        assert f"{tmp_path / name}/result.json" in sentence and sentence in caplog.text


def test_mean_and_deviation_are_the_textbooks():
    mean, deviation = mean_and_deviation([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3) and deviation == pytest.approx((7 / 3) ** 0.5)
    assert mean_and_deviation([3.0]) == (3.0, None)


def test_identical_runs_differ_by_exactly_nothing():
    units = numpy.random.default_rng(0).normal(size=40)
    assert paired_bootstrap([units], [units.copy()]) == Interval(0.0, 0.0, 0.0)
    assert not Interval(0.0, 0.0, 0.0).is_apart


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
