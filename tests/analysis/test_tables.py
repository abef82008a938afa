"""Tables: layouts become cells, cells become runs, runs become text; and what does not belong together is refused."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
import yaml
from statprune.analysis.collect import collect, windows
from statprune.analysis.spec import TABLES, load_table, table_names
from statprune.analysis.tables import Built, Entry, build, ranks, to_csv, to_latex, to_markdown
from statprune.analysis.tables import _units as units_of
from statprune.analysis.uncertainty import Interval, paired_bootstrap
from statprune.experiments.reproduce import Job, built_from, jobs_of, main, records
from statprune.experiments.reproduce import _print_plan as print_plan

from statprune.errors import ConfigError, StatpruneError

PUBLISHED = list(csv.DictReader((TABLES / "published.csv").open()))


def test_every_table_composes_at_both_scales_and_takes_each_published_value_once():
    used = []
    for name in table_names():
        for scale in ("bundled", "paper"):
            table = load_table(name, scale)
            places = {cell.place for cell in table.cells}
            assert places == {(s, r, c) for s in table.sections for r in table.rows for c in table.columns}
            assert len({(cell.place, cell.seed) for cell in table.cells}) == len(table.cells)
            used += table.published.values() if scale == "paper" else []
            assert scale == "paper" or not table.published
    assert len(used) > len(PUBLISHED)  # a dense row stands in three sections
    wanted = sorted({float(row["value"]) for row in PUBLISHED})
    assert sorted(set(used)) == wanted


def test_runs_are_looked_for_where_the_sweep_writes_them():
    table = load_table("ladder", "bundled")
    table = replace(table, cells=table.cells[:1])
    (here,) = jobs_of(table).values()
    (there,) = jobs_of(table, sweep=["hydra.sweep.dir=/shared/x", "hydra.launcher.n_jobs=2"]).values()
    assert here.folder.parent == Path("outputs/tables_bundled") and there.folder == Path("/shared/x", here.folder.name)


@pytest.mark.slow
def test_no_two_configurations_of_tables_and_studies_share_a_folder():
    names = [*table_names(), *map(str, sorted((TABLES.parent / "studies").glob("*.yaml")))]
    tables = [load_table(name, "bundled") for name in names]
    tables = [replace(table, cells=[cell for cell in table.cells if not cell.seed]) for table in tables]
    hashes = {}
    for job in jobs_of(*tables).values():
        assert hashes.setdefault(job.folder, job.config_hash) == job.config_hash, job.overrides


def test_published_values_stand_where_the_paper_has_them():
    ppl = load_table("ppl", "paper").published
    assert ppl["2:4", "Wanda + EC", "Llama-3-70B"] == 54.02 and ppl["50%", "Magnitude", "Qwen2.5-72B"] == 734.04
    assert ppl["4:8", "Dense", "Llama-2-7B"] == 5.12
    assert load_table("sparsity", "paper").published["Llama-2-13B", "SparseGPT", "70%"] == 18.04
    assert load_table("ladder", "paper").published["", "+ EC of columns", "Llama-2-7B"] == 6.21
    assert load_table("runtime", "paper").published["", "CVR + EC", "Llama-2-13B"] == 5.35
    assert load_table("calibration_size", "paper").published == {}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"rows": {"A": {"overides": []}}}, "the key overides in row 'A'"),
        ({"metric": "speed"}, "metric 'speed'; choose one of perplexity"),
        ({"columns": {48: []}}, "has 48 in columns, which YAML reads as no text"),
        ({"reference": "B"}, "has reference 'B', which is none of A"),
        ({"colums": {}}, "has the key colums"),
        ({"sections": {"s": []}, "columns": {"c": []}}, "sections and columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(change, message, tmp_path):
    described = {"title": "t", "metric": "perplexity", "rows": {"A": {"overrides": []}}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(described | change))
    with pytest.raises(ConfigError) as caught:
        load_table(str(tmp_path / "t.yaml"), "paper")
    assert any(message in problem for problem in caught.value.problems)


def test_unknown_tables_scales_models_and_keys_are_told(capsys):
    for arguments, message in (
        (["table=plp"], "table=plp is unknown; did you mean ppl?"),
        (["table=ppl", "scale=big"], "scale=big is unknown; choose one of bundled, paper"),
        (["table=ppl", "models=[GPT]"], "'GPT' is no model of scale bundled"),
        (["tabel=ppl"], "tabel=ppl is not understood; write key=value with one of"),
        (["scale=paper"], "table is missing; choose from alpha"),
        (["table=ppl", "overrides=[method.alfa=1]"], "table ppl, 50% / Dense / SmolLM2-135M: method.alfa is not a key"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and all(line.startswith("reproduce: ") for line in error.splitlines())


def test_a_dry_run_lists_cells_and_cost_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["table=ladder", "dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert "  + EC of rows / SmolLM2-135M: missing" in told and "12 runs, 12 missing, about 5 minutes" in told
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def own_table(tmp_path_factory, tiny_folder):
    """A table of one's own on the tiny model, run once: two methods, two columns, two seeds."""
    folder = tmp_path_factory.mktemp("table")
    described = {
        "title": "Mine",
        "source": "nobody's",
        "metric": "perplexity",
        "reference": "Wanda",
        "columns": {"50%": ["sparsity.ratio=0.5"], "70%": ["sparsity.ratio=0.7"]},
        "rows": {
            "Magnitude": {"overrides": ["method=magnitude", "compensation=none"], "seeds": [0]},
            "Wanda": {"overrides": ["method=wanda", "compensation=none"]},
            "Wanda again": {"overrides": ["method=wanda", "compensation=none"]},
        },
        "seeds": [0, 1],
        "scales": {"bundled": {"overrides": ["name=mine"]}},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    small = "calibration.samples=4,calibration.seq_len=32,evaluation.max_windows=6,cache=null"
    arguments = ["table=mine.yaml", f"overrides=[model.path={tiny_folder},{small}]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments) == 0
    return folder, arguments


def test_a_table_of_ones_own_is_run_and_built(own_table, monkeypatch):
    folder, _ = own_table
    monkeypatch.chdir(folder)
    found = {path.name: path for path in folder.glob("outputs/tables/bundled/*")}
    assert set(found) == {f"mine.{kind}" for kind in ("md", "tex", "csv", "png", "pdf")}
    rows = {(row["row"], row["column"]): row for row in csv.DictReader(found["mine.csv"].open())}
    frame = collect(folder / "outputs" / "mine").frame
    assert len(frame) == 6  # the same configuration is run once
    for (name, column), row in rows.items():
        method = "magnitude" if name == "Magnitude" else "wanda"
        own = frame[(frame.method == method) & (frame["sparsity.ratio"] == float(column.rstrip("%")) / 100)]
        assert float(row["mean"]) == pytest.approx(own.pruned.mean())
        if method == "wanda":
            assert float(row["deviation"]) == pytest.approx(own.pruned.std(ddof=1))
    assert [rows["Wanda again", "50%"][key] for key in ("difference", "low", "high")] == ["0.0"] * 3
    half = frame[frame["sparsity.ratio"] == 0.5]
    against = [windows(Path(name)).pruned_loss for name in half[half.method == "wanda"].folder]
    (alone,) = half[half.method == "magnitude"].folder
    wanted = paired_bootstrap([numpy.mean(against, axis=0)], [windows(Path(alone)).pruned_loss.to_numpy()])
    assert float(rows["Magnitude", "50%"]["low"]) == pytest.approx(wanted.low)
    text = found["mine.md"].read_text()
    assert "| Wanda again |" in text and " ≈" in text and "paired bootstrap over windows" in text


def test_deleting_one_record_runs_exactly_one_cell(own_table, monkeypatch, capfd):
    folder, arguments = own_table
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("outputs/mine/*/result.json")}
    table = (folder / "outputs/tables/bundled/mine.csv").read_text()
    gone = min(before)
    gone.unlink()
    assert main([*arguments, "sweep=[hydra.launcher.partition=gpu]"]) == 1  # not an option of this launcher
    assert not gone.exists() and "partition" in capfd.readouterr().err
    assert main(arguments) == 0
    assert "6 runs, 1 missing" in capfd.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in folder.glob("outputs/mine/*/result.json")}
    assert after.keys() == before.keys() and [path for path in before if before[path] != after[path]] == [gone]
    assert (folder / "outputs/tables/bundled/mine.csv").read_text() == table


@pytest.mark.parametrize("key,value", [("seq_len", 64), ("windows", 9), ("torch", "1.0"), ("sha256", "other")])
def test_cells_that_were_measured_otherwise_are_refused_by_name(key, value, own_table, tmp_path, monkeypatch):
    folder, arguments = own_table
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "outputs", tmp_path / "outputs")
    shutil.copy(folder / "mine.yaml", tmp_path)
    path = min(tmp_path.glob("outputs/mine/*wanda*/result.json"))
    record = json.loads(path.read_text())
    place = record["environment"]["packages"] if key == "torch" else record["metrics"]["perplexity"]["bundled"]
    place[key] = value
    path.write_text(json.dumps(record))
    assert main(arguments) == 1
    table = load_table("mine.yaml", "bundled", None, [*arguments[1].removeprefix("overrides=[").rstrip("]").split(",")])
    jobs = jobs_of(table)
    with pytest.raises(StatpruneError, match=f"different {key}: .*{path.parent.name}.*delete those"):
        built_from(jobs, table, records(jobs))


# -- text --


def made(**entries) -> Built:
    """A table with given numbers: rows by name, one column of published values."""
    table = load_table("ladder", "paper", ["Llama-2-7B"])
    places = {("", row, "Llama-2-7B"): entry for row, entry in zip(table.rows, entries.values(), strict=True)}
    places = {
        place: replace(entry, published=table.published.get(place))
        for place, entry in places.items()
        if entry is not None
    }
    return Built(table, places, "Made up.")


def entry(mean: float, deviation: float | None = None, interval: Interval | None = None) -> Entry:
    return Entry(mean, deviation, 1 if deviation is None else 3, interval, None)


def test_the_best_is_bold_the_second_underlined_and_distances_stand_in_their_own_column():
    apart, with_zero = Interval(-0.1, -0.2, -0.05), Interval(-0.1, -0.2, 0.05)
    built = made(a=entry(6.5), b=entry(6.3, 0.012, with_zero), c=entry(6.2, 0.1, apart), d=entry(6.2, 0.1))
    lines = to_markdown(built).splitlines()
    assert "| Wanda | 6.50 | +0.08 |" in lines
    assert "| + CVR | 6.30 ± 0.01 ≈ | -0.02 |" in lines  # two share the first place: there is no second
    assert "| + EC of columns | **6.20** ± 0.10 | -0.01 |" in lines
    built = made(a=entry(6.8), b=entry(6.3), c=entry(6.2), d=None)
    lines = to_markdown(built).splitlines()
    assert "| Wanda | 6.80 | +0.38 ! |" in lines and "| + CVR | <u>6.30</u> | -0.02 |" in lines
    assert "1 of 4 cells were not run yet." in lines and "!: more than 2% from the published value." in lines


def test_latex_has_booktabs_and_escapes():
    text = to_latex(made(a=entry(6.5), b=entry(6.3, 0.02), c=entry(6.2), d=None))
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert r"+ EC of columns & \textbf{6.20} & -0.01 \\" in text and r"\underline{6.30} $\pm$ 0.02" in text
    table = load_table("ppl", "bundled")
    place = ("50%", "Wanda", "SmolLM2-135M")
    text = to_latex(Built(table, {place: entry(5.0)}, ""))
    assert r"\multicolumn{2}{l}{50\%}" in text and r"\textbf" not in text  # nothing to be better than


def test_a_higher_accuracy_is_better_and_the_dense_row_does_not_compete():
    table = load_table("zero_shot", "bundled")
    values = {"Dense": 83.0, "Wanda": 73.0, "CVR + EC": 72.0, "Magnitude": 33.0}
    built = Built(table, {("50%", row, "SmolLM2-135M"): entry(value) for row, value in values.items()}, "")
    assert ranks(built, "50%", "SmolLM2-135M") == ({"Wanda"}, {"CVR + EC"})
    assert to_csv(built).splitlines()[1] == "50%,Dense,SmolLM2-135M,83.0,,1,,,,,,"


def test_values_that_are_not_finite_are_told_and_do_not_compete():
    built = made(a=entry(42.6), b=entry(math.nan), c=entry(37.4), d=entry(50.0))
    lines = to_markdown(built).splitlines()
    assert "| + CVR | not finite |  |" in lines and any("**37.40**" in line for line in lines)
    assert any("<u>42.60</u>" in line for line in lines)


def test_latex_says_labels_as_they_are():
    table = load_table("ladder", "bundled")
    labels = {name: f"|W|^2 σ {{x}} $ \\ ~ {name}" for name in table.rows}
    entries = {("", label, "SmolLM2-135M"): entry(5.0 + number) for number, label in enumerate(labels.values())}
    text = to_latex(Built(replace(table, rows=list(labels.values())), entries, ""))
    said = r"\textbar{}W\textbar{}\textasciicircum{}2 $\sigma$ \{x\} \$ \textbackslash{} \textasciitilde{} Wanda"
    assert said + r" & \textbf{5.00} \\" in text and text.isascii()


def test_an_interval_is_of_the_metric_that_the_mean_is_of(tmp_path):
    answers = [("a", 0, "acc", 0.0), ("a", 0, "acc_norm", 1.0), ("a", 1, "acc", 0.0), ("a", 1, "acc_norm", 0.0)]
    answers += [("b", 0, "exact_match,strict", 1.0), ("c", 0, "acc", 1.0)]
    table = pandas.DataFrame(answers, columns=["task", "document", "metric", "pruned"])
    table.to_parquet(tmp_path / "documents.parquet")
    run = pandas.Series({"folder": str(tmp_path), "averaged": {"a": "acc_norm", "b": "exact_match,strict", "g": "acc"}})
    assert [list(units) for units in units_of("zero_shot", run)] == [[100, 0], [100], []]  # g is a group
    with pytest.raises(StatpruneError, match=r"windows.parquet.*delete it, and run it again"):
        units_of("perplexity", run)


def test_seconds_of_unlike_machines_are_refused_and_of_dense_runs_there_are_none(own_table):
    folder, _ = own_table
    frame = collect(folder / "outputs" / "mine").frame
    hashes = list(frame.config_hash)
    table = load_table("runtime", "bundled")
    cells = [replace(cell, seed=number) for number, cell in enumerate(table.cells[:2])]
    table = replace(table, cells=cells)
    given = dict(zip(cells, hashes, strict=False))
    built = build(table, given, frame)
    row = frame.iloc[0]
    seconds = (row["seconds.observe"] + row["seconds.solve"]) / 21
    assert built.entries[cells[0].place].mean == pytest.approx(seconds) and len(built.entries) == 2
    for key, value in (("threads", 7), ("reused_statistics", True)):
        other = frame.copy()
        other[key] = other[key].where(other.index > 0, value)
        with pytest.raises(StatpruneError, match=f"different {key.replace('_', ' ')}: "):
            build(table, given, other)
    dense = frame.drop(columns=["seconds.observe", "seconds.solve"]).assign(layers=0)
    assert build(table, given, dense).entries == {}


def test_seeds_that_are_missing_are_told_and_pair_only_with_their_own(own_table, monkeypatch):
    folder, arguments = own_table
    monkeypatch.chdir(folder)
    table = load_table("mine.yaml", "bundled", None, arguments[1].removeprefix("overrides=[").rstrip("]").split(","))
    jobs = jobs_of(table)
    frame = records(jobs)
    gone = [jobs[cell].config_hash for cell in table.cells if cell.seed == 1 and "ratio=0.5" in str(cell.overrides)]
    whole, part = built_from(jobs, table, frame), built_from(jobs, table, frame[~frame.config_hash.isin(gone)])
    assert "SmolLM2-135M / Wanda / 50%: 1 of 2 seeds; the others were not run yet." in to_markdown(part)
    assert part.entries["SmolLM2-135M", "Wanda again", "50%"].interval == Interval(0, 0, 0)
    assert "were not run yet" not in to_markdown(whole)


def test_the_cost_scales_the_tables_own_estimates_by_what_finished_runs_took(capsys):
    cells = load_table("ladder", "paper", ["Llama-2-7B", "Llama-2-70B"]).cells
    costs = {"done": (100.0, 50.0), "small": (100.0, None), "large": (3500.0, None)}
    jobs = [Job((), name, Path(name), *seconds) for name, seconds in costs.items()]
    print_plan([], dict(zip(cells[:3], jobs, strict=True)))
    assert "3 runs, 2 missing, about 30 minutes (by the tables' own estimates, times 0.50" in capsys.readouterr().out


def test_an_empty_folder_gives_a_table_that_says_so():
    table = load_table("ppl", "bundled")
    built = build(table, dict.fromkeys(table.cells, "none"), pandas.DataFrame())
    assert "Nothing was run yet." in to_markdown(built) and "18 of 18 cells were not run yet." in to_markdown(built)
    assert built.entries == {}
