"""A sweep through each launcher gives what it gives in one process; Optuna minimises. Run by ``make test-cluster``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers.command import statprune

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).with_name("slurm.sh")
SWEEP = ["method=magnitude,wanda", "seed=0,1"]
# one thread per job: jobs share the machine's cores
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]


def tiny(folder: Path) -> list[str]:
    lengths = ["calibration.seq_len=32", "evaluation.seq_len=32"]
    return ["experiment=smoke", f"model.path={folder}", "device=cpu", *lengths]


def sweep(cwd: Path, *overrides: str, fails: bool = False, **environment: str) -> subprocess.CompletedProcess:
    done = statprune("-m", *overrides, cwd=cwd, **QUIET, **environment)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Warning" not in done.stderr or fails
    return done


def records(cwd: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (cwd / "outputs" / "smoke").glob("*/result.json")]


def metrics(cwd: Path) -> dict:
    """What the four jobs measured, by method and seed."""
    found = {(each["config"]["method"]["name"], each["config"]["seed"]): each["metrics"] for each in records(cwd)}
    assert len(found) == len(records(cwd)) == 4
    return found


@pytest.fixture(scope="module")
def expected(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same sweep one job after another, by Hydra's own launcher."""
    cwd = tmp_path_factory.mktemp("basic")
    sweep(cwd, *tiny(tiny_folder), *SWEEP)
    return metrics(cwd)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm of one node: the environment that its commands need."""
    started = subprocess.run([SCRIPT, "start"], stdout=subprocess.PIPE, text=True, timeout=400)
    last = (started.stdout.strip() or "it says nothing").splitlines()[-1]
    if started.returncode == 3:
        pytest.skip(last)
    assert started.returncode == 0, started.stdout
    yield {"SLURM_CONF": last}
    subprocess.run([SCRIPT, "stop"], check=True, timeout=60)


def test_joblib(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert metrics(tmp_path) == expected


def test_a_job_that_fails_ends_in_its_sentence_and_the_others_are_done(tiny_folder, tmp_path):
    lengths = [*tiny(tiny_folder), "calibration.seq_len=65,32", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = sweep(tmp_path, *lengths, fails=True)
    assert "failed: calibration.seq_len=65 is longer than the model's 64 positions; lower it" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(records(tmp_path)) == 1


def test_ray(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2")
    assert metrics(tmp_path) == expected


def test_submitit_without_slurm(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=submitit_local")
    assert metrics(tmp_path) == expected


def test_slurm(expected, tiny_folder, tmp_path, slurm):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, *SLURM, "hydra.launcher.partition=main", **slurm)
    assert metrics(tmp_path) == expected
    assert len(list(tmp_path.glob("outputs/smoke/.submitit/*/*_log.out"))) == 4


def test_a_job_that_slurm_preempts_is_queued_again(tiny_folder, tmp_path, slurm):
    command = [sys.executable, "-m", "statprune", "-m", *tiny(tiny_folder), "method=wanda", *SLURM]
    environment = os.environ | QUIET | slurm
    launcher = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: list(tmp_path.glob("outputs/smoke/*/.hydra/overrides.yaml")), launcher)
        # as Slurm does it with PreemptParameters=send_user_signal
        subprocess.run(["scancel", f"--signal={signal.SIGUSR2.name}", "--name=statprune"], env=environment, check=True)
        _, errors = launcher.communicate(timeout=200)
    finally:
        launcher.kill()
    assert launcher.returncode == 0, errors
    (log,) = tmp_path.glob("outputs/smoke/.submitit/*/*_log.out")
    assert log.read_text().count("Starting with") == 2
    assert len(records(tmp_path)) == 1


def wait_for(there, process: subprocess.Popen, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)


def test_optuna_minimises_the_perplexity(tiny_folder, tmp_path):
    space = ["method.alpha=interval(0,2)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]
    sweep(tmp_path, *tiny(tiny_folder), "method=cvr", *space)
    best = yaml.safe_load((tmp_path / "outputs" / "smoke" / "optimization_results.yaml").read_text())
    found = {
        each["config"]["method"]["alpha"]: each["metrics"]["perplexity"]["bundled"]["pruned"]
        for each in records(tmp_path)
    }
    assert len(found) == 3 and all(0 <= alpha <= 2 for alpha in found)
    assert best["best_value"] == min(found.values())
    assert found[best["best_params"]["method.alpha"]] == best["best_value"]
