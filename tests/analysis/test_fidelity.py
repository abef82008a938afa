"""Fidelity and flips where runs are looked at together: rows, tables, comparisons, the report."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest

from statprune.analysis.collect import collect, rows_of
from statprune.analysis.compare import compare
from statprune.analysis.compare_text import print_comparison, to_json
from statprune.analysis.measures import MEASURES
from statprune.analysis.report import runs_table
from statprune.analysis.table_figures import figure_of
from statprune.analysis.table_text import ranks, to_csv, to_markdown
from statprune.analysis.tables import build, units
from statprune.analysis.uncertainty import paired_bootstrap
from statprune.config.table_spec import Cell, Reference, Table
from statprune.runs.pipeline import run
from statprune.runs.record import FidelityResult
from statprune.runs.store import read_record
from tests.helpers.command import tiny_job
from tests.helpers.old_records import copy_schema_1
from tests.helpers.runs import record_text

METHODS = ("magnitude", "wanda", "dense")


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """The folder of a run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        own = [f"method={method}", *([] if method == "dense" else ["compensation=none"])]
        run(tiny_job(tiny_folder, *own), folder / method)
    return folder


@pytest.fixture(scope="module")
def windows(runs):
    """The windows of each pruned run."""
    return {method: pandas.read_parquet(runs / method / "windows.parquet") for method in METHODS[:2]}


def built(runs, metric, methods=METHODS):
    """A table of one column with a row for each method, wanda the reference, and its runs."""
    cells = [Cell(("", method, "x"), 0, (), 1.0) for method in methods]
    table = Table("t", "T", "", metric, 2, "bundled", [""], list(methods), ["x"], Reference("wanda"), cells)
    hashes = {cell: read_record(runs / cell.place[1]).config_hash for cell in cells}
    return build(table, hashes, collect(runs).frame)


def test_a_row_has_divergence_and_agreement(runs, windows):
    frame = collect(runs).frame.set_index("method")
    for method, own in windows.items():
        assert frame.loc[method, "kl"] == pytest.approx(own.divergence.mean())
        assert frame.loc[method, "top1"] == pytest.approx(own.agreement.mean())
    assert math.isnan(frame.loc["dense", "kl"]) and math.isnan(frame.loc["dense", "top1"])


@pytest.mark.parametrize(("metric", "column", "factor"), [("kl", "divergence", 1), ("top1", "agreement", 100)])
def test_a_table_of_fidelity_has_paired_intervals(metric, column, factor, runs, windows):
    table = built(runs, metric)
    own, other = (factor * windows[method][column].to_numpy() for method in METHODS[:2])
    entry = table.entries["", "magnitude", "x"]
    assert entry.mean == pytest.approx(own.mean()) and entry.interval == paired_bootstrap([other], [own])
    text = to_markdown(table)
    assert MEASURES[metric].described.format(on="bundled") in text and f"{entry.mean:.2f}" in text
    assert "1 of 3 cells have no number; 1 finished run did not measure it" in text and "not run yet" not in text
    assert MEASURES[metric].unit in to_csv(table) and figure_of(table).axes[0].get_xlabel() == MEASURES[metric].axis


def test_less_divergence_and_more_agreement_are_better(runs):
    for metric, best in (("kl", 0.1), ("top1", 0.9)):
        table = built(runs, metric, METHODS[:2])
        means = dict(zip(table.entries, (0.1, 0.9), strict=True))
        entries = {place: replace(entry, mean=means[place]) for place, entry in table.entries.items()}
        wanted = {place[1] for place, mean in means.items() if mean == best}
        assert ranks(replace(table, entries=entries), "", "x").best == wanted


def test_a_divergence_that_is_not_finite_is_an_entry_that_is_not_finite(runs):
    record = replace(read_record(runs / "wanda"), fidelity={"bundled": FidelityResult(None, None, 4)})
    frame = pandas.DataFrame(rows_of(record, runs / "wanda"))
    for metric in ("kl", "top1"):
        assert len(values := MEASURES[metric].values(frame).value) == 1 and not math.isfinite(values.iloc[0])


def test_rows_of_older_records_have_no_fidelity(tmp_path):
    frame = collect(copy_schema_1(tmp_path / "old")).frame
    for metric in ("kl", "top1", "flips"):
        assert MEASURES[metric].values(frame).empty
    assert MEASURES["kl"].values(frame.drop(columns=["kl", "top1"])).empty


def test_what_is_resampled_of_flips_is_each_documents_change(tmp_path):
    answers = [("a", 0, "acc", 0.0, 1.0), ("a", 1, "acc", 1.0, 1.0), ("b", 0, "acc", 1.0, 0.0)]
    columns = ["task", "document", "metric", "dense", "pruned"]
    pandas.DataFrame(answers, columns=columns).to_parquet(tmp_path / "documents.parquet")
    own = pandas.Series({"folder": str(tmp_path), "averaged": {"a": "acc", "b": "acc"}})
    assert [list(each) for each in units("flips", own)] == [[100, 0], [100]]


def test_the_report_has_a_column_for_each(runs):
    columns, rows = runs_table(collect(runs).frame, runs)
    for name in ("KL bundled", "top-1 bundled"):
        cells = {row[0].text: row[columns.index(name)] for row in rows}
        assert cells["dense"].text == "" and cells["wanda"].number > 0


def test_runs_are_compared_by_fidelity(runs, windows, capsys):
    comparison = compare([runs / method for method in METHODS])
    for what in ("divergence", "agreement"):
        first, second, dense = comparison.fidelity["bundled"][what]
        values = [windows[method][what].to_numpy() for method in METHODS[:2]]
        assert (first.pruned, second.pruned) == pytest.approx(tuple(map(numpy.mean, values)))
        assert second.interval == paired_bootstrap([values[0]], [values[1]])
        assert dense.pruned is None and dense.unpaired == "it did not measure fidelity"
    assert json.loads(to_json(comparison))["fidelity"]["bundled"]["divergence"][0]["pruned"] == first_divergence(runs)
    print_comparison(comparison)
    out = capsys.readouterr().out
    assert "divergence from dense on bundled (nats per token)" in out and "agreement with dense on bundled" in out


def first_divergence(runs):
    """Of the first run, as its record has it."""
    return read_record(runs / METHODS[0]).fidelity["bundled"].divergence


def test_runs_whose_windows_lack_fidelity_are_not_paired(runs, tmp_path):
    copy = Path(shutil.copytree(runs / "wanda", tmp_path / "copy"))
    (copy / "result.json").write_text(record_text(replace(read_record(copy), files={}).to_json()))
    pandas.read_parquet(copy / "windows.parquet").drop(columns="divergence").to_parquet(copy / "windows.parquet")
    _, own = compare([runs / "magnitude", copy]).fidelity["bundled"]["divergence"]
    assert own.unpaired == "a windows.parquet can't be read" and own.pruned is not None
