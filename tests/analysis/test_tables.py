"""Tables from records: means, deviations, paired intervals; what does not belong together is refused."""

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import pandas
import pytest

from statprune.analysis.collect import collect, windows
from statprune.analysis.tables import Built, Entry, Made, build, units
from statprune.analysis.uncertainty import Interval, paired_bootstrap
from statprune.config.table_spec import Table, load_table
from statprune.errors import StatpruneError
from statprune.experiments.reproduce import jobs_of
from statprune.runs.pipeline import run
from tests.helpers.command import composed
from tests.helpers.old_records import FINISHED, copy_schema_1, schema_1_values
from tests.helpers.own_table import small, write_table
from tests.helpers.runs import record_text

MODEL = "model"  # the section of the own table: the folder that the overrides name


@dataclass(frozen=True)
class OwnTable:
    """A table whose runs are there: its layout, the hash of each cell, the folder of the runs and their rows."""

    table: Table
    hashes: dict
    folder: Path
    frame: pandas.DataFrame

    def built(self) -> Built:
        return build(self.table, self.hashes, self.frame)


@pytest.fixture(scope="module")
def own(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("table")
    table = load_table(str(write_table(folder / "mine.yaml")), "bundled", None, small(tiny_folder))
    jobs = jobs_of([table], [f"hydra.sweep.dir={folder / 'runs'}"])
    for job in {job.folder: job for job in jobs.values()}.values():
        run(composed(*job.overrides), job.folder)
    hashes = {cell: job.config_hash for cell, job in jobs.items()}
    return OwnTable(table, hashes, folder / "runs", collect(folder / "runs").frame)


def runs_of(own, row, column):
    """The rows of ``collect`` that a place of the own table stands on."""
    method = "magnitude" if row == "Magnitude" else "wanda"
    ratio = float(column.rstrip("%")) / 100
    return own.frame[(own.frame.method == method) & (own.frame["sparsity.ratio"] == ratio)]


def test_a_cell_says_when_where_and_from_which_code_its_runs_were_made(own):
    wanda = json.loads(Path(runs_of(own, "Wanda", "50%").iloc[0]["folder"], "result.json").read_text(encoding="utf-8"))
    made, environment = own.built().entries[MODEL, "Wanda", "50%"].made, wanda["environment"]
    assert made.date == wanda["date"][:10] and (environment["git_commit"] or "").startswith(made.commit[:7])
    assert (made.device, made.threads) == (environment["device"], str(environment["threads"]))


def test_a_cell_of_several_machines_names_them_all_and_older_records_nothing():
    rows = [
        {"date": "2026-11-28T05:00:00", "commit": "75b65ac", "device": "cpu (x86_64)", "threads": 2.0},
        {"date": "2026-11-27T23:00:00", "commit": "75b65ac", "device": None, "threads": math.nan},
    ]
    made = Made.by([pandas.Series(row) for row in rows])
    assert made == Made("2026-11-27, 2026-11-28", "75b65ac", "cpu (x86_64)", "2")


@pytest.mark.parametrize("row", ["Magnitude", "Wanda", "Wanda again"])
@pytest.mark.parametrize("column", ["50%", "70%"])
def test_an_entry_is_the_mean_over_seeds(row, column, own):
    runs, entry = runs_of(own, row, column), own.built().entries[MODEL, row, column]
    assert entry.mean == pytest.approx(runs.pruned.mean()) and entry.seeds == len(runs)


@pytest.mark.parametrize("column", ["50%", "70%"])
def test_the_deviation_is_the_samples_over_seeds(column, own):
    entry = own.built().entries[MODEL, "Wanda", column]
    assert entry.deviation == pytest.approx(runs_of(own, "Wanda", column).pruned.std(ddof=1))


def test_one_seed_has_no_deviation(own):
    assert own.built().entries[MODEL, "Magnitude", "50%"].deviation is None


def test_the_same_runs_differ_from_the_reference_by_exactly_nothing(own):
    assert own.built().entries[MODEL, "Wanda again", "50%"].interval == Interval(0.0, 0.0, 0.0)


def test_the_reference_itself_has_no_interval(own):
    assert own.built().entries[MODEL, "Wanda", "50%"].interval is None


def test_an_interval_pairs_a_single_seed_with_the_references_mean_over_seeds(own):
    against = [windows(Path(name)).pruned_loss for name in runs_of(own, "Wanda", "50%").folder]
    (alone,) = runs_of(own, "Magnitude", "50%").folder
    expected = paired_bootstrap([numpy.mean(against, axis=0)], [windows(Path(alone)).pruned_loss.to_numpy()])
    interval = own.built().entries[MODEL, "Magnitude", "50%"].interval
    assert interval.low == pytest.approx(expected.low) and interval.high == pytest.approx(expected.high)


@pytest.mark.parametrize("key,value", [("seq_len", 64), ("windows", 9), ("torch", "1.0"), ("sha256", "other")])
def test_cells_that_were_measured_otherwise_are_refused_by_name(key, value, own, tmp_path):
    shutil.copytree(own.folder, tmp_path / "runs")
    path = min(tmp_path.glob("runs/*wanda*/result.json"))
    record = json.loads(path.read_text())
    place = record["environment"]["packages"] if key == "torch" else record["perplexity"]["bundled"]
    place[key] = value
    path.write_text(record_text(record))
    with pytest.raises(StatpruneError, match=f"different {key}: .*{path.parent.name}.*delete those"):
        build(own.table, own.hashes, collect(tmp_path / "runs").frame)


def without_second_seed(own):
    """The table without the second seed at half sparsity."""
    gone = [own.hashes[cell] for cell in own.table.cells if cell.seed == 1 and "ratio=0.5" in str(cell.overrides)]
    return build(own.table, own.hashes, own.frame[~own.frame.config_hash.isin(gone)])


def test_an_entry_counts_the_seeds_that_are_there(own):
    assert without_second_seed(own).entries[MODEL, "Wanda", "50%"].seeds == 1
    assert own.built().entries[MODEL, "Wanda", "50%"].seeds == 2


def test_seeds_pair_only_with_their_own(own):
    assert without_second_seed(own).entries[MODEL, "Wanda again", "50%"].interval == Interval(0, 0, 0)


def test_an_interval_is_of_the_metric_that_the_mean_is_of(tmp_path):
    answers = [("a", 0, "acc", 0.0), ("a", 0, "acc_norm", 1.0), ("a", 1, "acc", 0.0), ("a", 1, "acc_norm", 0.0)]
    answers += [("b", 0, "exact_match,strict", 1.0), ("c", 0, "acc", 1.0)]
    table = pandas.DataFrame(answers, columns=["task", "document", "metric", "pruned"])
    table.to_parquet(tmp_path / "documents.parquet")
    averaged = {"a": "acc_norm", "b": "exact_match,strict", "g": "acc"}  # g is a group
    run = pandas.Series({"folder": str(tmp_path), "averaged": averaged})
    assert [list(answers) for answers in units("zero_shot", run)] == [[100, 0], [100], []]


def test_a_record_without_its_finer_files_is_to_be_run_again(tmp_path):
    run = pandas.Series({"folder": str(tmp_path), "on": "bundled"})
    with pytest.raises(StatpruneError, match=r"windows.parquet.*delete it, and run it again"):
        units("perplexity", run)


@pytest.fixture
def timed(own):
    """A table of seconds on the same runs."""
    table = load_table("runtime", "bundled")
    cells = [replace(cell, seed=number) for number, cell in enumerate(table.cells[:2])]
    hashes = dict(zip(cells, own.frame.config_hash, strict=False))
    return OwnTable(replace(table, cells=cells), hashes, own.folder, own.frame)


def test_seconds_are_those_of_observing_and_solving_by_matrix(timed):
    entries, row = timed.built().entries, timed.frame.iloc[0]
    seconds = (row["seconds.observe"] + row["seconds.solve"]) / 21
    assert entries[timed.table.cells[0].place].mean == pytest.approx(seconds) and len(entries) == 2


@pytest.mark.parametrize("key,value", [("threads", 7), ("reused_statistics", True)])
def test_seconds_that_are_not_comparable_are_refused(key, value, timed):
    other = timed.frame.copy()
    other[key] = other[key].where(other.index > 0, value)
    with pytest.raises(StatpruneError, match=f"different {key.replace('_', ' ')}: "):
        build(timed.table, timed.hashes, other)


def test_dense_runs_have_no_seconds_of_pruning(timed):
    dense = timed.frame.drop(columns=["seconds.observe", "seconds.solve"]).assign(layers=0)
    assert build(timed.table, timed.hashes, dense).entries == {}


def test_an_empty_folder_gives_a_table_without_entries():
    table = load_table("ppl", "bundled")
    built = build(table, dict.fromkeys(table.cells, "none"), pandas.DataFrame())
    assert built.entries == {} and built.runs == "Nothing was run yet."


def test_a_run_whose_perplexity_is_not_finite_is_an_entry_that_is_none(own):
    hashes = set(own.frame[own.frame.method == "magnitude"].config_hash)
    frame = own.frame.assign(pruned=own.frame.pruned.mask(own.frame.config_hash.isin(hashes)))
    entry = build(own.table, own.hashes, frame).entries[MODEL, "Magnitude", "50%"]
    assert math.isnan(entry.mean) and entry == replace(entry, deviation=None, seeds=1, published=None)


def test_the_distance_is_ours_minus_the_published_value():
    assert Entry(6.5, None, 1, None, 6.25).delta == 0.25 and Entry(6.5, None, 1, None, None).delta is None


@pytest.mark.parametrize("name", FINISHED)
def test_a_record_of_schema_1_stands_in_a_table_with_its_perplexity(name, own, tmp_path):
    values = schema_1_values(name)
    cell = own.table.cells[0]
    table = replace(own.table, cells=[cell])
    built = build(table, {cell: values["config_hash"]}, collect(copy_schema_1(tmp_path / "old")).frame)
    ((place, entry),) = built.entries.items()
    assert (place, entry.mean) == (cell.place, values["metrics"]["perplexity"]["bundled"]["pruned"])
    assert (entry.deviation, entry.seeds, entry.interval, entry.published) == (None, 1, None, None)
    assert entry.made is not None and entry.made.date == values["date"][:10]


def test_a_record_of_schema_1_stands_in_a_table_with_its_accuracy(tmp_path):
    values = schema_1_values("zero_shot")
    table = load_table("zero_shot", "bundled")
    cell = table.cells[0]
    frame = collect(copy_schema_1(tmp_path / "old")).frame
    built = build(replace(table, cells=[cell]), {cell: values["config_hash"]}, frame)
    assert built.entries[cell.place].mean == pytest.approx(100 * values["metrics"]["zero_shot"]["mean"]["pruned"])


def test_a_pending_record_of_schema_1_stands_in_no_table(own, tmp_path):
    cell = own.table.cells[0]
    hashes = {cell: schema_1_values("pending")["config_hash"]}
    built = build(replace(own.table, cells=[cell]), hashes, collect(copy_schema_1(tmp_path / "old")).frame)
    assert built.entries == {}
