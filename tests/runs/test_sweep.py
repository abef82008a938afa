"""Sweeps: names, skipping, failures, kills, shared work, locks, and what W&B is told."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from statprune.config.naming import differing_keys
from statprune.errors import StatpruneError
from statprune.runs.job import carry_out, finished_record
from statprune.runs.ledger import swept_grids
from statprune.runs.pipeline import run
from statprune.runs.tracking import Tracker, run_id
from statprune.runs.workbench import Workbench
from statprune.system import lock
from statprune.system.lock import LOCK, LockedError, locked
from tests.helpers.command import composed, statprune, tiny
from tests.helpers.models import tiny_llama
from tests.helpers.wandb_files import wandb_run

SMALL = ("experiment=smoke", "calibration.seq_len=32", "evaluation.seq_len=32")


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/*/*/result.json")}


def numbers(folder: Path) -> dict[str, tuple]:
    """What must not depend on how a run came about: perplexities, sparsity and every layer's numbers but its time."""
    result = {}
    for name, record in records(folder).items():
        (path,) = folder.glob(f"outputs/*/{name}/blocks.jsonl")
        layers = [json.loads(line) for line in path.read_text().splitlines()]
        for layer in layers:
            del layer["seconds"]
        result[name] = (record["metrics"], record["sparsity"], record["config_hash"], layers)
    return result


GRID = ("method=magnitude,wanda,cvr", "sparsity=unstructured,2_4", "seed=0,1")


@pytest.fixture(scope="module")
def grid(tmp_path_factory, tiny_folder):
    """A sweep of twelve jobs, tracked offline."""
    folder = tmp_path_factory.mktemp("grid")
    done = statprune("-m", *SMALL, f"model.path={tiny_folder}", "tracking=offline", *GRID, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_grid_has_a_readable_folder_and_a_record_for_every_job(grid):
    folder, done = grid
    names = set(records(folder))
    assert len(names) == 12 and "12 runs: 12 finished" in done.stdout
    expected = {
        f"model_bundled_{pattern}_{method}_{'energy' if method == 'cvr' else 'none'}_s{seed}"
        for method in ("magnitude", "wanda", "cvr")
        for pattern in ("0.5", "2_4")
        for seed in (0, 1)
    }
    assert {name.rpartition("_")[0] for name in names} == expected
    assert len({name.rpartition("_")[2] for name in names}) == 1  # what else was changed is the same in all
    for name in names:
        (kept,) = folder.glob(f"outputs/smoke/{name}/.hydra")
        assert {file.name for file in kept.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert not list(folder.rglob(LOCK)) and not list(folder.glob("outputs/.cache/sweeps/*"))


def test_jobs_of_a_sweep_have_the_numbers_of_separate_runs(grid, tiny_folder, tmp_path):
    folder, done = grid
    assert done.stderr.count("reused the model") == 11 and done.stderr.count("reused the dense perplexity") == 11
    for method in ("wanda", "cvr"):
        options = (*SMALL, f"model.path={tiny_folder}", f"method={method}", "sparsity='2_4'", "seed=1")
        record = run(composed(*options), tmp_path / "outputs" / "alone" / method)
        (name,) = (name for name in records(folder) if f"2_4_{method}" in name and "_s1_" in name)
        assert numbers(tmp_path)[method][:2] == numbers(folder)[name][:2] and not record["reused"]
        assert numbers(tmp_path)[method][3] == numbers(folder)[name][3]


def test_finished_jobs_are_skipped_and_changed_ones_are_refused(grid, tiny_folder):
    folder, _ = grid
    before = {path: path.stat().st_mtime_ns for path in folder.glob("outputs/*/*/result.json")}
    job = (*SMALL, f"model.path={tiny_folder}", "tracking=offline", "method=wanda", "seed=0,1")
    again = statprune("-m", *job, cwd=folder)
    assert again.returncode == 0 and "2 runs: 2 skipped" in again.stdout
    assert again.stderr.count("is finished already; rerun=true runs it again") == 2
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("outputs/*/*/result.json")}
    (place,) = folder.glob("outputs/smoke/*_2_4_wanda_none_s0_*")
    other = statprune(*job[:-1], "sparsity=4_8", f"hydra.run.dir={place}", cwd=folder)
    assert other.returncode == 1 and other.stderr.count("\n") == 1, other.stderr
    assert "differing keys: sparsity.keep, sparsity.of" in other.stderr
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("outputs/*/*/result.json")}


def test_every_job_is_a_wandb_run_with_its_own_config_and_summary(grid):
    folder, _ = grid
    seen = set()
    for name, record in records(folder).items():
        (file,) = folder.glob(f"outputs/smoke/{name}/wandb/offline-run-*/*.wandb")
        tracked = wandb_run(file)
        seen.add(tracked["id"])
        assert tracked["group"] == "smoke" and tracked["job_type"] == "prune" and tracked["finished"]
        method = record["config"]["method"]["name"]
        assert {method, "2:4" if "_2_4_" in name else "0.5", "model"} == set(tracked["tags"])
        assert tracked["config"]["method"] == record["config"]["method"]
        assert tracked["config"]["seed"] == record["config"]["seed"]
        assert tracked["config"]["config_hash"] == record["config_hash"]
        values = record["metrics"]["perplexity"]["bundled"]
        assert tracked["summary"]["perplexity/bundled"] == values["pruned"]
        assert tracked["summary"]["perplexity/bundled_dense"] == values["dense"]
        assert tracked["summary"]["sparsity/achieved"] == record["sparsity"]["achieved"]
        assert tracked["summary"]["seconds/solve"] == record["seconds"]["solve"]
        assert tracked["summary"]["memory/peak_gib"] > 0
        assert tracked["summary"]["layers.nrows"] == 21
        blocks = [row for row in tracked["history"] if "block" in row]
        assert [row["block"] for row in blocks] == [0, 1, 2]
    assert len(seen) == 12


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
    assert swept_grids(["experiment=smoke,main", "method=wanda,cvr"]) == []


def test_a_preset_starts_its_own_grid(tiny_folder, tmp_path):
    job = ("experiment=ablation_compensation", f"model.path={tiny_folder}", "tracking=disabled", *SMALL[1:])
    small = ("calibration.samples=2", "evaluation.max_windows=2", "propagation=dense")
    done = statprune(*job, *small, "method=wanda,sparsegpt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {name.rpartition("_s0_")[0] for name in records(tmp_path)}
    assert names == {
        f"model_bundled_0.5_{method}_{compensation}"
        for method in ("wanda", "sparsegpt")
        for compensation in ("none", "energy", "energy-columns", "energy-rows")
    }
    # Wanda's pass has no Gram matrices, SparseGPT's serves both
    assert done.stderr.count("reused the calibration pass") == 6


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_any_moment_is_finished_by_the_same_command(grid, tiny_folder, tmp_path):
    folder, _ = grid
    command = [sys.executable, "-m", "statprune", "-m", *SMALL, f"model.path={tiny_folder}", "tracking=offline", *GRID]
    source = random.Random(0)
    first_seen: dict[str, int] = {}
    for _ in range(4):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.uniform(3.0, 8.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob("outputs/*/*/result.json"):
            json.loads(path.read_text())
            assert first_seen.setdefault(path.parent.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, written in first_seen.items():
        assert (tmp_path / "outputs" / "smoke" / name / "result.json").stat().st_mtime_ns == written
    assert done.stderr.count("is finished already") == len(first_seen)
    assert numbers(tmp_path) == numbers(folder)
    assert not list(tmp_path.rglob(".result.json.*")) and not list(tmp_path.rglob(LOCK))


def test_with_dense_propagation_one_pass_serves_every_method(tiny_folder, tmp_path):
    bench = Workbench(keeps=True)
    options = (*SMALL, f"model.path={tiny_folder}", "propagation=dense")
    jobs = ["method=sparsegpt", "method=wanda", "method=cvr", "method=sparsegpt method.damping=0.1", "method=magnitude"]
    for number, job in enumerate(jobs):
        config = composed(*options, *job.split())
        shared = run(config, tmp_path / "outputs" / "shared" / str(number), bench)
        run(config, tmp_path / "outputs" / "alone" / f"{number}a")
        assert ("the calibration pass" in shared["reused"]) == (number > 0)
        together, alone = numbers(tmp_path)[str(number)], numbers(tmp_path)[f"{number}a"]
        assert together == alone
    other = run(composed(*options, "method=wanda", "seed=1"), tmp_path / "other", bench)
    assert "the calibration pass" not in other["reused"] and "the model" in other["reused"]


def test_a_model_that_changed_on_disk_is_not_taken_from_memory_or_cache(tiny_folder, tmp_path):
    torch.manual_seed(1)
    folder = tmp_path / "model"
    tiny_llama().save_pretrained(folder)
    for file in tiny_folder.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    bench, config = Workbench(keeps=True), tiny(folder, "method=wanda", f"cache={tmp_path / 'cache'}")
    first = run(config, tmp_path / "a", bench)
    assert "the dense perplexity" in run(config, tmp_path / "b", Workbench(keeps=False))["reused"]
    changed = tiny_llama()
    with torch.no_grad():
        changed.model.layers[0].mlp.down_proj.weight.mul_(3)
    changed.save_pretrained(folder)
    second = run(config, tmp_path / "c", bench)
    assert second["reused"] == []
    uncached = run(tiny(folder, "method=ria", "cache=null"), tmp_path / "d", bench)
    assert {"the model", "the dense perplexity"} <= set(uncached["reused"])
    dense = [record["metrics"]["perplexity"]["bundled"]["dense"] for record in (first, second)]
    assert dense[0] != dense[1]


def test_a_damaged_cache_is_measured_again(tiny_folder, tmp_path, caplog):
    config = tiny(tiny_folder, "method=dense", f"cache={tmp_path / 'cache'}")
    first = run(config, tmp_path / "a")
    (file,) = (tmp_path / "cache" / "dense").iterdir()
    for content in ("{", "[1]", '{"bundled": "x"}'):
        file.write_text(content)
        again = run(config, tmp_path / "b")
        assert again["metrics"] == first["metrics"] and again["reused"] == []
        assert "damaged" in caplog.text
        caplog.clear()


def test_a_record_of_another_run_or_a_damaged_one_is_never_taken_for_this_one(tiny_folder, tmp_path):
    config = tiny(tiny_folder)
    assert finished_record(config, tmp_path) is None
    record = run(config, tmp_path)
    assert finished_record(config, tmp_path) == json.loads((tmp_path / "result.json").read_text())
    assert finished_record(tiny(tiny_folder, "rerun=true"), tmp_path) is None
    assert finished_record(tiny(tiny_folder, "save_model=true"), tmp_path) is None  # its model is still to be made
    with pytest.raises(StatpruneError, match=r"differing keys: calibration\.samples, seed"):
        finished_record(tiny(tiny_folder, "seed=3", "calibration.samples=3"), tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(record)[:-9])
    with pytest.raises(StatpruneError, match=r"can't be read .* delete it, or give rerun=true"):
        finished_record(config, tmp_path)


def test_a_pending_run_is_completed_by_one_process_only(tiny_folder, tmp_path, monkeypatch):
    composed_job = OmegaConf.create(tiny(tiny_folder).resolved())
    pending = {"pending": {}, "metrics": {"perplexity": {}}}
    monkeypatch.setattr("statprune.runs.job.finished_record", lambda *_: pending)
    monkeypatch.setattr("statprune.runs.job.complete", lambda *_: pending)
    with locked(tmp_path):
        other = carry_out(composed_job, tmp_path, Workbench(keeps=False), others_follow=True)
    assert other.state == "failed" and "is being written by process" in other.reasons[0]
    assert carry_out(composed_job, tmp_path, Workbench(keeps=False), others_follow=True).state == "finished"


plain = st.recursive(
    st.integers(-3, 3) | st.booleans() | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abcd"), plain, max_size=4))
def test_a_configuration_differs_from_itself_nowhere_and_from_others_where_they_were_changed(config):
    copy = json.loads(json.dumps(config))
    assert differing_keys(config, copy) == []
    copy["new"] = {"key": 1}
    assert differing_keys(config, copy) == ["new.key"] == differing_keys(copy, config)
    assert differing_keys({**config, "name": "x", "tracking": {"mode": 1}}, {**config, "name": "y"}) == []


def hold(folder: str, ready, leave) -> None:
    with locked(Path(folder)):
        ready.set()
        leave.wait(60)


def test_a_folder_has_one_writer_and_dead_ones_are_taken_over(tmp_path, monkeypatch):
    context = get_context("spawn")
    ready, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready, leave))
    process.start()
    assert ready.wait(60)
    with pytest.raises(LockedError, match=f"written by process {process.pid} on .*delete .*{LOCK}"), locked(tmp_path):
        pass
    process.kill()
    process.join()
    with locked(tmp_path):
        holder = json.loads((tmp_path / LOCK).read_text())
        assert holder["pid"] == os.getpid()
        # the same number, but another process: one that started at another time
        (tmp_path / LOCK).write_text(json.dumps(holder | {"started": "1"}))
        with locked(tmp_path):
            pass
    for content in ("", "{", "[]"):
        (tmp_path / LOCK).write_text(content)
        with locked(tmp_path):
            pass
    elsewhere = holder | {"host": "another machine"}
    (tmp_path / LOCK).write_text(json.dumps(elsewhere))
    with pytest.raises(LockedError, match="on another machine"), locked(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (0, time.time() - lock.SILENCE - 60))
    with locked(tmp_path):
        pass
    # a job that Slurm started again waits for its former self's silence
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(lock, "SILENCE", 1.0)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    (tmp_path / LOCK).write_text(json.dumps(elsewhere))
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_of_many_processes_that_start_at_once_one_writes(tmp_path):
    program = f"""
import sys, time
from pathlib import Path
from statprune.system.lock import LockedError, locked
time.sleep(max(0, {time.time() + 4} - time.time()))
for _ in range(30):
    try:
        with locked(Path({str(tmp_path)!r})):
            mark = Path({str(tmp_path)!r}, "mark")
            mark.touch(exist_ok=False)
            time.sleep(0.002)
            mark.unlink()
    except LockedError:
        pass
"""
    workers = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0], [worker.stderr.read() for worker in workers]


def test_a_failed_run_is_finished_in_wandb_and_another_try_has_the_same_id(tiny_folder, tmp_path, monkeypatch):
    config = tiny(tiny_folder, "tracking=offline", "tracking.tags=[mine]", "tracking.notes=why")
    monkeypatch.setattr("statprune.runs.pipeline.prune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config, tmp_path / "failed")
    monkeypatch.undo()
    run(config, tmp_path / "again")
    failed, again = (wandb_run(next((tmp_path / name).rglob("*.wandb"))) for name in ("failed", "again"))
    assert failed["id"] == again["id"] == run_id(config) and failed["finished"] and again["finished"]
    assert failed["exit_code"] == 1 and again["exit_code"] == 0
    assert "mine" in again["tags"] and again["notes"] == "why"


def test_wandb_writes_below_the_runs_folder_wherever_its_process_was_started(tiny_folder, tmp_path, monkeypatch):
    import wandb

    wandb.setup()
    monkeypatch.chdir(tmp_path)
    run(tiny(tiny_folder, "tracking=offline"), Path("here"))
    (file,) = (tmp_path / "here").glob("wandb/offline-run-*/*.wandb")
    assert wandb_run(file)["exit_code"] == 0


def test_masks_and_models_are_uploaded_if_asked_for(tiny_folder, tmp_path):
    import numpy as np
    from transformers import AutoModelForCausalLM

    wanted = ("tracking=offline", "tracking.artifacts=[masks,model]", "save_model=true")
    run(tiny(tiny_folder, *wanted), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    masks = np.load(tmp_path / "masks.npz")
    assert len(masks) == 21
    for name in masks:
        weight = model.get_parameter(f"{name}.weight").detach().numpy()
        assert (np.unpackbits(masks[name], axis=1)[:, : weight.shape[1]] == (weight != 0)).all()
    assert {"masks", "model"} <= wandb_run(next(tmp_path.rglob("*.wandb")))["artifacts"]


def test_wandb_that_fails_costs_no_result(tiny_folder, tmp_path, monkeypatch, caplog):
    import wandb

    def broken(*_, **__):
        raise wandb.errors.CommError("the service is down\nand more")

    config = tiny(tiny_folder, "tracking=offline")
    for place in ("init", "Run.log", "Run.finish"):
        target, _, name = place.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(wandb, target) if target else wandb, name, broken)
            record = run(config, tmp_path / place)
        assert json.loads((tmp_path / place / "result.json").read_text())["metrics"] == record["metrics"]
        assert caplog.text.count("the service is down") == 1 and "and more" not in caplog.text
        caplog.clear()
    wandb.teardown()


def test_online_tracking_without_a_network_ends_in_a_warning(tiny_folder, tmp_path):
    job = (*SMALL, f"model.path={tiny_folder}", "tracking=online")
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "3"}
    done = statprune(*job, cwd=tmp_path, **away)
    assert done.returncode == 0 and len(records(tmp_path)) == 1, done.stderr
    assert "W&B could not be started" in done.stderr and "Traceback" not in done.stderr


def test_a_sweep_agent_chooses_the_id(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    tracker = Tracker(tiny(tiny_folder, "tracking=offline"), tmp_path)
    tracker.finish({}, [], {})
    assert wandb_run(next(tmp_path.rglob("*.wandb")))["id"] != run_id(tiny(tiny_folder, "tracking=offline"))
