"""Plans of tables: where runs are looked for, which are missing and what they cost, and the sweep that is started."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from statprune.config.table_files import TABLES, table_names
from statprune.config.table_spec import load_table
from statprune.errors import ConfigError, StatpruneError
from statprune.experiments.reproduce import Job, jobs_of, missing_jobs, print_plan, run_jobs
from statprune.runs.pipeline import run
from tests.helpers.command import composed
from tests.helpers.own_table import small, write_table


def first_cells(table, count):
    """The table with its first cells alone."""
    return replace(table, cells=table.cells[:count])


def test_runs_are_looked_for_where_the_sweep_writes_them():
    (job,) = jobs_of([first_cells(load_table("ladder", "bundled"), 1)]).values()
    assert job.folder.parent == Path("outputs/tables_bundled")


def test_runs_are_looked_for_in_another_folder_of_the_sweep():
    table = first_cells(load_table("ladder", "bundled"), 1)
    (here,) = jobs_of([table]).values()
    (there,) = jobs_of([table], sweep=["hydra.sweep.dir=/shared/x", "hydra.launcher.n_jobs=2"]).values()
    assert there.folder == Path("/shared/x", here.folder.name)


@pytest.mark.slow
@pytest.mark.long
def test_no_two_configurations_of_tables_and_studies_share_a_folder():
    names = [*table_names(), *map(str, sorted((TABLES.parent / "studies").glob("*.yaml")))]
    tables = [load_table(name, "bundled") for name in names]
    tables = [replace(table, cells=[cell for cell in table.cells if not cell.seed]) for table in tables]
    hashes = {}
    for job in jobs_of(tables).values():
        assert hashes.setdefault(job.folder, job.config_hash) == job.config_hash, job.overrides


@pytest.fixture
def own(tmp_path, tiny_folder, monkeypatch):
    """A table of one's own on the tiny model, in a folder where nothing was run."""
    monkeypatch.chdir(tmp_path)
    return load_table(str(write_table(tmp_path / "mine.yaml")), "bundled", None, small(tiny_folder))


def test_cells_with_the_same_configuration_share_a_run(own):
    jobs = jobs_of([own])
    assert len(jobs) == len(own.cells) == 10 and len({job.config_hash for job in jobs.values()}) == 6
    assert len(missing_jobs(jobs)) == 6


def test_tables_with_the_same_configurations_share_their_runs(own):
    other = replace(own, name="other", cells=[replace(cell, seconds=1.0) for cell in own.cells])
    assert len(missing_jobs(jobs_of([own, other]))) == 6


def test_the_order_of_overrides_of_different_keys_makes_no_other_run(own):
    last_of_each_key = {override.partition("=")[0]: override for override in own.cells[0].overrides}
    cell = replace(own.cells[0], overrides=tuple(last_of_each_key.values()))
    turned = replace(cell, overrides=cell.overrides[::-1])
    jobs = jobs_of([replace(own, cells=[cell, turned])])
    assert cell != turned and jobs[cell] == jobs[turned]


def test_a_finished_run_is_done_and_has_the_seconds_it_took(own):
    (job,) = jobs_of([first_cells(own, 1)]).values()
    assert not job.is_done
    record = run(composed(*job.overrides), job.folder)
    (job,) = jobs_of([first_cells(own, 1)]).values()
    assert job.is_done and job.seconds == pytest.approx(sum(record.seconds.values()))
    assert len(missing_jobs(jobs_of([own]))) == 5


def test_a_folder_that_holds_another_run_is_refused(own):
    (job,) = jobs_of([first_cells(own, 1)]).values()
    run(composed(*job.overrides, "seed=5"), job.folder)
    with pytest.raises(StatpruneError, match=r"holds a run with another configuration \(differing keys: seed\)"):
        jobs_of([own])


def test_what_is_wrong_with_a_cells_overrides_names_the_cell():
    table = load_table("ppl", "bundled", None, ["method.alfa=1"])
    with pytest.raises(ConfigError) as caught:
        jobs_of([table])
    (problem,) = caught.value.problems
    assert problem.startswith("table ppl, 50% / Dense / SmolLM2-135M: method.alfa is not a key")


def made_up_jobs(cells, **seconds):
    """Jobs of cells by name: the seconds they are estimated to take, and took."""
    jobs = [Job((), name, Path(name), *both) for name, both in seconds.items()]
    return dict(zip(cells, jobs, strict=True))


def test_the_cost_scales_the_tables_own_estimates_by_what_finished_runs_took(capsys):
    cells = load_table("ladder", "paper", ["Llama-2-7B", "Llama-2-70B"]).cells[:3]
    print_plan([], made_up_jobs(cells, done=(100.0, 50.0), small=(100.0, None), large=(3500.0, None)))
    assert capsys.readouterr().out == (
        "3 runs, 2 missing, about 30 minutes (by the tables' own estimates, times 0.50 as the 1 finished run took)\n"
    )


def test_the_cost_is_the_tables_own_estimate_where_nothing_is_finished(capsys):
    cells = load_table("ladder", "bundled").cells[:2]
    print_plan([], made_up_jobs(cells, small=(400.0, None), large=(6800.0, None)))
    assert capsys.readouterr().out == "2 runs, 2 missing, about 2.0 hours (by the tables' own estimates)\n"


def test_a_plan_has_the_state_of_each_place(capsys):
    table = first_cells(load_table("ladder", "bundled"), 5)
    places = [table.rows[0]] * 2 + [table.rows[1]] * 2 + [table.rows[2]]
    cells = [
        replace(cell, place=("", row, "SmolLM2-135M"), seed=number)
        for number, (cell, row) in enumerate(zip(table.cells, places, strict=True))
    ]
    table = replace(table, cells=cells)
    states = {"a": (1.0, 1.0), "b": (1.0, 1.0), "c": (1.0, 1.0), "d": (1.0, None), "e": (1.0, None)}
    print_plan([table], made_up_jobs(cells, **states))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ladder: {table.title} (Table 5), bundled scale"
    assert lines[1:4] == [
        "  Wanda / SmolLM2-135M: done",
        "  + CVR / SmolLM2-135M: 1 of 2 seeds done",
        "  + EC of columns / SmolLM2-135M: missing",
    ]


class Sweep:
    """Stands for the process of a sweep, and remembers how it was started.

    Args:
        *ends: what each call of ``wait`` gives; an exception is raised.
    """

    def __init__(self, *ends):
        self.ends = list(ends)
        self.signals = []

    def __call__(self, command, stdout=None):
        file = next(part for part in command if part.startswith("hydra.sweeper.file=")).partition("=")[2]
        self.command, self.cells = command, json.loads(Path(file).read_text())
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert not self.ends

    def send_signal(self, number):
        self.signals.append(number)

    def wait(self):
        end = self.ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end


JOBS = [
    Job(("name=mine", "method=wanda"), "a", Path("a"), 1.0, None),
    Job(("name=mine", "sparsity='2_4'"), "b", Path("b"), 1.0, None),
]


def test_missing_runs_are_started_as_one_sweep_over_their_cells(monkeypatch):
    sweep = Sweep(3)
    monkeypatch.setattr("subprocess.Popen", sweep)
    assert run_jobs(JOBS, "joblib", ["hydra.launcher.n_jobs=2"]) == 3
    assert sweep.command[1:6] == ["-m", "statprune", "-m", "hydra.launcher.n_jobs=2", "hydra/sweeper=cells"]
    assert sweep.command[7:] == ["hydra/launcher=joblib", "name=mine"]
    assert sweep.cells == [["name=mine", "method=wanda"], ["name=mine", "sparsity='2_4'"]]


def test_a_sweep_that_is_interrupted_is_waited_for(monkeypatch):
    sweep = Sweep(KeyboardInterrupt(), KeyboardInterrupt(15), 130)
    monkeypatch.setattr("subprocess.Popen", sweep)
    assert run_jobs(JOBS) == 130
    assert sweep.signals == [2, 15]  # also one that only reached the command itself
