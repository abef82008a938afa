"""Whole sweeps by the command: names, skipping, failures, kills and shared work."""

import random
import re
import signal
import subprocess
import sys
import time

import pandas
import pytest

from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from statprune.system.lock import LOCK
from tests.helpers.command import composed, statprune
from tests.helpers.runs import SMALL, numbers, records
from tests.helpers.wandb_files import wandb_run

GRID = ("method=magnitude,wanda,cvr", "sparsity=unstructured,2_4", "seed=0,1")


@pytest.fixture(scope="module")
def grid(tmp_path_factory, tiny_folder):
    """The folder of a sweep of twelve jobs, tracked offline, and how the command ended."""
    folder = tmp_path_factory.mktemp("grid")
    done = statprune("-m", *SMALL, f"model.path={tiny_folder}", "tracking=offline", *GRID, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_job_of_a_grid_has_a_record(grid):
    folder, done = grid
    assert len(records(folder)) == 12 and "12 runs: 12 finished" in done.stdout


def test_jobs_of_a_grid_are_counted_while_they_end(grid):
    counts = re.findall(r"^\[(\d+) of 12\] outputs/smoke/\S+: finished, perplexity on", grid[1].stdout, re.MULTILINE)
    assert counts == [str(number) for number in range(1, 13)]


def test_the_table_of_a_grid_beside_its_runs_has_what_was_swept_and_what_came_of_it(grid):
    folder, _ = grid
    table = pandas.read_csv(folder / "outputs" / "smoke" / "sweep.csv", dtype={"seed": str})
    assert [*table] == ["run", "method", "sparsity", "seed", "perplexity", "state"] and len(table) == 12
    for run_name, record in records(folder).items():
        (row,) = table[table.run == run_name].itertuples()
        keep, config = record.config["sparsity"]["keep"], record.config
        assert (row.method, row.seed) == (config["method"]["name"], str(config["seed"]))
        assert row.sparsity == ("unstructured" if keep is None else "2_4") and row.state == "finished"
        assert row.perplexity == pytest.approx(record.perplexity["bundled"].pruned)


def test_every_job_of_a_grid_has_a_readable_folder(grid):
    words = "calibration.seq_len=32_evaluation.seq_len=32"
    assert {name.rpartition("_")[0] for name in records(grid[0])} == {
        f"model_bundled_{pattern}_{method}_{'energy' if method == 'cvr' else 'none'}_s{seed}_{words}"
        for method in ("magnitude", "wanda", "cvr")
        for pattern in ("0.5", "2_4")
        for seed in (0, 1)
    }


def test_what_a_name_does_not_show_is_the_same_hash_in_all_jobs(grid):
    assert len({name.rpartition("_")[2] for name in records(grid[0])}) == 1


def test_every_job_of_a_grid_has_hydras_files(grid):
    folder, _ = grid
    for name in records(folder):
        (hydra,) = folder.glob(f"outputs/smoke/{name}/.hydra")
        assert {file.name for file in hydra.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}


def test_a_sweep_leaves_no_locks_and_notes(grid):
    folder, _ = grid
    assert not list(folder.rglob(LOCK)) and not list(folder.glob("outputs/.cache/sweeps/*"))


@pytest.mark.parametrize("what", ["model", "dense perplexity"])
def test_jobs_of_a_sweep_reuse_what_they_have_in_common(grid, what):
    assert grid[1].stderr.count(f"reused the {what}") == 11


@pytest.mark.parametrize("method", ["wanda", "cvr"])
def test_jobs_of_a_sweep_have_the_numbers_of_separate_runs(method, grid, tiny_folder, tmp_path):
    folder, _ = grid
    options = (*SMALL, f"model.path={tiny_folder}", f"method={method}", "sparsity='2_4'", "seed=1")
    record = run(composed(*options), tmp_path / "outputs" / "alone" / method)
    (name,) = (name for name in records(folder) if f"2_4_{method}" in name and "_s1_" in name)
    assert numbers(tmp_path)[method] == numbers(folder)[name] and not record.reused


def times(folder):
    """When each record was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("outputs/*/*/result.json")}


def test_finished_jobs_are_skipped(grid, tiny_folder):
    folder, _ = grid
    before = times(folder)
    job = (*SMALL, f"model.path={tiny_folder}", "tracking=offline", "method=wanda", "seed=0,1")
    again = statprune("-m", *job, cwd=folder)
    assert again.returncode == 0 and "2 runs: 2 skipped" in again.stdout
    assert again.stderr.count("is finished already; rerun=true runs it again") == 2
    assert times(folder) == before


def test_a_changed_job_in_the_same_folder_is_refused(grid, tiny_folder):
    folder, _ = grid
    before = times(folder)
    (place,) = folder.glob("outputs/smoke/*_2_4_wanda_none_s0_*")
    job = (*SMALL, f"model.path={tiny_folder}", "tracking=offline", "method=wanda", "sparsity=4_8")
    other = statprune(*job, f"hydra.run.dir={place}", cwd=folder)
    assert other.returncode == 1 and other.stderr.count("\n") == 1, other.stderr
    assert "differing keys: sparsity.keep, sparsity.of" in other.stderr
    assert times(folder) == before


@pytest.fixture(scope="module")
def tracked(grid):
    """By run: its record, and what W&B's file says of it."""
    folder, _ = grid
    result = {}
    for name, record in records(folder).items():
        (file,) = folder.glob(f"outputs/smoke/{name}/wandb/offline-run-*/*.wandb")
        result[name] = record, wandb_run(file)
    return result


def test_every_job_is_a_wandb_run_of_its_own(tracked):
    assert len({wandb["id"] for _, wandb in tracked.values()}) == 12
    assert all(wandb["finished"] for _, wandb in tracked.values())


def test_wandb_runs_are_grouped_and_tagged(tracked):
    for name, (record, wandb) in tracked.items():
        assert wandb["group"] == "smoke" and wandb["job_type"] == "prune"
        method = record.config["method"]["name"]
        assert {method, "2:4" if "_2_4_" in name else "0.5", "model"} == set(wandb["tags"])


def test_wandb_runs_have_their_own_configurations(tracked):
    for record, wandb in tracked.values():
        assert wandb["config"]["method"] == record.config["method"]
        assert wandb["config"]["seed"] == record.config["seed"]
        assert wandb["config"]["config_hash"] == record.config_hash


def test_wandb_runs_have_their_own_summaries(tracked):
    for record, wandb in tracked.values():
        perplexity, summary = record.perplexity["bundled"], wandb["summary"]
        assert summary["perplexity/bundled"] == perplexity.pruned
        assert summary["perplexity/bundled_dense"] == perplexity.dense
        assert summary["sparsity/achieved"] == record.sparsity.achieved
        assert summary["seconds/solve"] == record.seconds["solve"]
        assert summary["memory/peak_gib"] > 0


def test_wandb_runs_have_a_table_of_all_matrices(tracked):
    assert {wandb["summary"]["layers.nrows"] for _, wandb in tracked.values()} == {21}


def test_wandb_runs_have_a_history_of_blocks(tracked):
    for _, wandb in tracked.values():
        assert [row["block"] for row in wandb["history"] if "block" in row] == [0, 1, 2]


def test_a_failed_job_does_not_stop_the_others(tiny_folder, tmp_path):
    job = (*SMALL, f"model.path={tiny_folder}", "method=wanda", "sparsity.keep=2", "sparsity.of=5,4")
    done = statprune("-m", *job, cwd=tmp_path)
    assert done.returncode == 1 and "2 runs: 1 finished, 1 failed" in done.stdout and len(records(tmp_path)) == 1
    (reason,) = (line for line in done.stderr.splitlines() if line.startswith("statprune: "))
    assert "_2_5_wanda_none_s0" in reason and "inputs are not divisible by M=5" in reason
    assert "Traceback" not in done.stderr


def test_presets_that_are_grids_are_not_swept_over(tmp_path):
    done = statprune("-m", "experiment=ablation_compensation,smoke", cwd=tmp_path)
    assert done.returncode == 1 and "presets that are grids themselves; start them one after" in done.stderr


@pytest.fixture(scope="module")
def preset(tmp_path_factory, tiny_folder):
    """The folder of a preset that is a grid, run with dense propagation, and how the command ended."""
    folder = tmp_path_factory.mktemp("preset")
    job = ("experiment=ablation_compensation", f"model.path={tiny_folder}", "tracking=disabled", *SMALL[1:])
    small = ("calibration.samples=2", "evaluation.max_windows=2", "propagation=dense")
    done = statprune(*job, *small, "method=wanda,sparsegpt", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_preset_starts_its_own_grid(preset):
    assert {name.rpartition("_s0_")[0] for name in records(preset[0])} == {
        f"model_bundled_0.5_{method}_{compensation}"
        for method in ("wanda", "sparsegpt")
        for compensation in ("none", "energy", "energy-columns", "energy-rows")
    }


def test_with_dense_propagation_a_sweep_reuses_the_calibration_pass(preset):
    # Wanda's pass has no Gram matrices, SparseGPT's serves both
    assert preset[1].stderr.count("reused the calibration pass") == 6


@pytest.mark.long
def test_a_sweep_that_is_killed_at_any_moment_is_finished_by_the_same_command(grid, tiny_folder, tmp_path):
    folder, _ = grid
    command = [sys.executable, "-m", "statprune", "-m", *SMALL, f"model.path={tiny_folder}", "tracking=offline", *GRID]
    source = random.Random(0)
    first_seen: dict[str, int] = {}
    for _ in range(3):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.uniform(3.0, 8.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path, written in times(tmp_path).items():
            assert read_record(path.parent) is not None
            assert first_seen.setdefault(path.parent.name, written) == written
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, written in first_seen.items():
        assert (tmp_path / "outputs" / "smoke" / name / "result.json").stat().st_mtime_ns == written
    assert done.stderr.count("is finished already") == len(first_seen)
    assert numbers(tmp_path) == numbers(folder)
    assert not list(tmp_path.rglob(".result.json.*")) and not list(tmp_path.rglob(LOCK))
