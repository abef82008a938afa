"""``statprune tables``: plans, runs what is missing, builds tables; what is wrong is said in sentences."""

import csv
import json
import shutil
from types import SimpleNamespace

import pytest

from statprune.analysis.collect import collect
from statprune.analysis.table_text import to_csv
from statprune.analysis.tables import build
from statprune.cli.interrupts import INTERRUPTED
from statprune.cli.tables import EXAMPLE
from statprune.config.table_files import table_names
from statprune.config.table_spec import load_table
from statprune.experiments.reproduce import jobs_of
from tests.helpers.old_records import SCHEMA_1, schema_1_values
from tests.helpers.own_table import small, write_table
from tests.helpers.runs import record_text
from tests.helpers.verbs import verb
from tests.helpers.warm import WarmSweep

LADDER = ["Wanda", "+ CVR", "+ EC of columns", "+ EC of rows"]  # rows of the table ladder


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def plan(capsys, *arguments):
    """The lines of a plan."""
    assert verb("tables", *arguments, "--dry-run") == 0
    return capsys.readouterr().out.splitlines()


def places_in(lines):
    return [line.strip().removesuffix(": missing") for line in lines if line.startswith("  ")]


def test_rows_may_use_own_configurations(tmp_path, capsys):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "strong.yaml").write_text("defaults: [ria]\npower: 0.7\n")
    table = write_table(tmp_path / "own.yaml", rows={"Wanda": ["method=wanda"], "Strong": ["method=strong"]})
    assert "  SmolLM2-135M / Strong / 50%: missing" in plan(capsys, str(table), "--config-dir", "mine")


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit) as ended:
        verb("tables", "--help")
    assert ended.value.code == 0 and EXAMPLE in capsys.readouterr().out


def test_help_lists_the_tables(capsys):
    with pytest.raises(SystemExit):
        verb("tables", "--help")
    assert f"{', '.join(table_names())}, all, or the path of a table's YAML" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    "arguments,problem",
    [
        (["plp"], "the table plp is unknown; did you mean ppl?"),
        (["ppl", "--scale", "big"], "there is no scale big; choose one of bundled, paper"),
        (["ppl", "--models", "GPT"], "'GPT' is no model of scale bundled; choose from SmolLM2-135M"),
        ([], f"name a table: {', '.join(table_names())}, all, or the path of a YAML"),
        (
            ["ppl", "--overrides", "method.alfa=1"],
            "table ppl, 50% / Dense / SmolLM2-135M: method.alfa is not a key with method=dense",
        ),
        (["ladder", "--rows", "Wando"], "the table ladder has no row 'Wando'; did you mean 'Wanda'?"),
        (
            ["ladder", "--columns", "SmolLM"],
            "the table ladder has no column 'SmolLM'; did you mean 'SmolLM2-135M'?",
        ),
        (["ladder", "--metric", "ppl"], "--metric ppl is unknown; choose one of perplexity"),
        (["ladder", "--seeds", "7"], "the table ladder has no seed 7; choose from 0, 1, 2"),
    ],
)
def test_what_is_wrong_with_a_command_is_a_sentence(arguments, problem, tmp_path, capsys):
    assert verb("tables", *arguments) == 1
    error = capsys.readouterr().err
    assert f"statprune: {problem}" in error and all(line.startswith("statprune: ") for line in error.splitlines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["--tabel", "--scales=paper"])
def test_an_option_that_does_not_exist_is_refused(argument, capsys):
    assert verb("tables", "ppl", argument) == 1
    assert f"statprune: unrecognized arguments: {argument}; statprune tables --help" in capsys.readouterr().err


def test_seeds_have_to_be_numbers(capsys):
    assert verb("tables", "ladder", "--seeds", "first") == 1
    assert "argument --seeds: invalid int value: 'first'" in capsys.readouterr().err


def test_a_dry_run_lists_cells_and_cost(capsys):
    lines = plan(capsys, "ladder")
    assert places_in(lines) == [f"{row} / SmolLM2-135M" for row in LADDER]
    assert lines[-1].startswith("12 runs, 12 missing, about 5 minutes")


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    plan(capsys, "ladder")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_can_have_several_tables(capsys):
    lines = plan(capsys, "ladder", "alpha")
    assert [line.partition(":")[0] for line in lines if not line.startswith("  ")][:2] == ["ladder", "alpha"]


def test_only_the_rows_that_are_named_are_planned(capsys):
    lines = plan(capsys, "ladder", "--rows", "+ CVR", "Wanda")
    assert places_in(lines) == ["Wanda / SmolLM2-135M", "+ CVR / SmolLM2-135M"]
    assert lines[-1].startswith("6 runs, 6 missing")


def test_only_the_columns_that_are_named_are_planned(capsys):
    lines = plan(capsys, "calibration_size", "--columns", "2", "32")
    assert set(places_in(lines)) == {
        f"SmolLM2-135M / {row} / {column}" for row in ("Wanda", "CVR + EC") for column in ("2", "32")
    }


def test_only_the_sections_that_are_named_as_columns_are_planned(capsys):
    lines = plan(capsys, "ppl", "--columns", "2:4", "--rows", "Wanda")
    assert places_in(lines) == ["2:4 / Wanda / SmolLM2-135M"]


def test_only_the_seeds_that_are_named_are_planned(capsys):
    lines = plan(capsys, "ladder", "--seeds", 0, 2)
    assert len(places_in(lines)) == 4 and lines[-1].startswith("8 runs, 8 missing")


def test_only_the_models_that_are_named_are_planned(capsys):
    lines = plan(capsys, "ladder", "--scale", "paper", "--models", "Llama-2-70B")
    assert places_in(lines) == [f"{row} / Llama-2-70B" for row in LADDER]


# -- a table of one's own, which is run --


@pytest.fixture(scope="module")
def arguments(tiny_folder):
    """The command that runs and builds the table."""
    return ["tables", "mine.yaml", "--overrides", *small(tiny_folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments):
    """The folder in which the table was run and built."""
    folder = tmp_path_factory.mktemp("table")
    write_table(folder / "mine.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert verb(*arguments) == 0
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that folder, in which commands run."""
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def warm_sweep(monkeypatch):
    """The sweep of what is missing runs in a fork: that it runs in a process of its own, the finished table shows."""
    monkeypatch.setattr("statprune.experiments.reproduce.subprocess", SimpleNamespace(Popen=WarmSweep))


def written(folder):
    """When each record was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("outputs/mine/*/result.json")}


def test_a_table_is_written_as_text_and_as_figure(finished):
    paths = finished.glob("outputs/tables/bundled/*")
    assert {path.name for path in paths} == {f"mine.{kind}" for kind in ("md", "tex", "csv", "png", "pdf")}


def test_a_configuration_is_run_once(finished):
    assert len(written(finished)) == len(collect(finished / "outputs" / "mine").frame) == 6


def test_a_table_has_the_numbers_of_its_runs(finished, tiny_folder, monkeypatch):
    monkeypatch.chdir(finished)
    table = load_table("mine.yaml", "bundled", None, small(tiny_folder))
    hashes = {cell: job.config_hash for cell, job in jobs_of([table]).items()}
    frame = collect(finished / "outputs" / "mine").frame
    text = (finished / "outputs/tables/bundled/mine.csv").read_text()
    assert text == to_csv(build(table, hashes, frame))
    rows = {(row["row"], row["column"]): row for row in csv.DictReader(text.splitlines())}
    for (name, column), row in rows.items():
        method = "magnitude" if name == "Magnitude" else "wanda"
        own = frame[(frame.method == method) & (frame["sparsity.ratio"] == float(column.rstrip("%")) / 100)]
        assert float(row["mean"]) == pytest.approx(own.pruned.mean())
        if method == "wanda":
            assert float(row["deviation"]) == pytest.approx(own.pruned.std(ddof=1))
    assert [rows["Wanda again", "50%"][key] for key in ("difference", "low", "high")] == ["0.0"] * 3


def test_a_table_explains_its_intervals(finished):
    text = (finished / "outputs/tables/bundled/mine.md").read_text()
    assert "| Wanda again |" in text and " ≈" in text and "paired bootstrap over windows" in text


def test_a_finished_table_is_built_again_without_a_run(copy, arguments, capfd):
    before, table = written(copy), (copy / "outputs/tables/bundled/mine.csv").read_text()
    assert verb(*arguments) == 0
    output = capfd.readouterr().out
    assert "6 runs, 0 missing" in output and (copy / "outputs/tables/bundled/mine.md").read_text() in output
    assert written(copy) == before and (copy / "outputs/tables/bundled/mine.csv").read_text() == table


def test_a_part_of_a_table_is_built_in_another_folder(copy, arguments, capfd):
    assert verb(*arguments, "--rows", "Wanda", "--columns", "70%", "--seeds", 1, "--output", "part") == 0
    assert "1 run, 0 missing" in capfd.readouterr().out
    (row,) = csv.DictReader((copy / "part" / "mine.csv").open())
    assert (row["row"], row["column"], row["seeds"]) == ("Wanda", "70%", "1")


@pytest.mark.usefixtures("warm_sweep")
def test_deleting_one_record_runs_exactly_one_cell(copy, arguments, capfd):
    before, table = written(copy), (copy / "outputs/tables/bundled/mine.csv").read_text()
    gone = min(before)
    gone.unlink()
    assert verb(*arguments) == 0
    assert "6 runs, 1 missing" in capfd.readouterr().out
    after = written(copy)
    assert after.keys() == before.keys() and [path for path in before if before[path] != after[path]] == [gone]
    assert (copy / "outputs/tables/bundled/mine.csv").read_text() == table


@pytest.mark.usefixtures("warm_sweep")
def test_a_sweep_that_fails_is_an_exit_status(copy, arguments, capfd):
    gone = min(written(copy))
    gone.unlink()
    assert verb(*arguments, "--sweep", "hydra.launcher.partition=gpu") == 1  # not an option of this launcher
    assert not gone.exists() and "partition" in capfd.readouterr().err


def test_a_sweep_that_is_interrupted_leaves_the_table_as_it_was(copy, arguments, monkeypatch, capfd):
    min(written(copy)).unlink()
    shutil.rmtree(copy / "outputs/tables")
    monkeypatch.setattr("statprune.cli.tables.run_jobs", lambda *_: INTERRUPTED)
    assert verb(*arguments) == INTERRUPTED
    assert not (copy / "outputs/tables").exists()


def test_a_part_without_a_cell_is_a_sentence(copy, arguments, capfd):
    assert verb(*arguments, "--rows", "Magnitude", "--seeds", 1) == 1  # magnitude has the first seed alone
    errors = capfd.readouterr().err.splitlines()
    assert errors and all(line.startswith("statprune: ") for line in errors)


@pytest.mark.parametrize("key,value", [("seq_len", 64), ("windows", 9), ("torch", "1.0"), ("sha256", "other")])
def test_cells_that_were_measured_otherwise_are_refused_by_name(key, value, copy, arguments, capfd):
    path = min(copy.glob("outputs/mine/*wanda*/result.json"))
    record = json.loads(path.read_text())
    place = record["environment"]["packages"] if key == "torch" else record["perplexity"]["bundled"]
    place[key] = value
    path.write_text(record_text(record))
    assert verb(*arguments) == 1
    (problem,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("statprune: "))
    assert f"different {key}: " in problem and path.parent.name in problem and "delete those" in problem


# -- records of schema 1 --

OLD_RUNS = {
    "plain": ["model.path=tiny", "method=wanda", "compensation=moments"],
    "mixture": ["model.path=mixture", "method=cvr", "compensation=energy"],
    "pending": [
        *("model.path=tiny", "method=magnitude", "sparsity.ratio=0.8"),
        *("evaluation=full", "evaluation.tasks=[tasks/alone.yaml]", "evaluation.limit=6"),
    ],
}
OLD_LENGTHS = ["calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4"]


@pytest.fixture
def old(tmp_path):
    """The command for a table whose runs wrote schema 1, or began to."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "alone.yaml").write_text("task: alone")
    rows = {name: {"overrides": overrides} for name, overrides in OLD_RUNS.items()}
    write_table(tmp_path / "old.yaml", rows=rows, columns={"all": []}, seeds=[0], reference="plain")
    for cell, job in jobs_of([load_table("old.yaml", "bundled", None, OLD_LENGTHS)]).items():
        shutil.copytree(SCHEMA_1 / cell.place[1], job.folder)
    return ["old.yaml", "--overrides", *OLD_LENGTHS]


def test_records_of_schema_1_are_done(old, capsys):
    lines = plan(capsys, *old)
    assert lines[1:4] == [
        "  SmolLM2-135M / plain / all: done",
        "  SmolLM2-135M / mixture / all: done",
        "  SmolLM2-135M / pending / all: missing",
    ]
    assert lines[4].startswith("3 runs, 1 missing")


def test_records_of_schema_1_stand_in_the_table_with_their_numbers(old, tmp_path):
    assert verb("tables", *old, "--rows", "plain", "mixture", "--output", tmp_path / "built") == 0
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "built" / "old.csv").open())}
    for name in ("plain", "mixture"):
        values = schema_1_values(name)
        assert float(rows[name]["mean"]) == values["metrics"]["perplexity"]["bundled"]["pruned"]


def test_a_pending_record_of_schema_1_is_named_and_left_out(old, tmp_path, caplog):
    assert verb("tables", *old, "--rows", "plain", "mixture", "--output", tmp_path / "built") == 0
    assert "lacks its zero-shot evaluation and is left out" in caplog.text
    rows = csv.DictReader((tmp_path / "built" / "old.csv").open())
    assert [row["row"] for row in rows] == ["plain", "mixture"]
