"""A sweep through each launcher, with files of the user's own, gives what it gives in one process; Optuna minimises.

Run by ``make test-cluster``.
"""

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
# with a file of configurations and a score of the user's own, which each job's process has to find
SWEEP = ["--config-dir", "mine", "plugins=[own.py]", "calibration=few", "method=magnitude,own_score", "seed=0,1"]
SCORE = """
from statprune import score

@score()
def own_score(weight, statistics):
    return weight.abs() * statistics.norm.to(weight.dtype)
"""
# one thread per job: jobs share the machine's cores
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]


def tiny(folder: Path) -> list[str]:
    lengths = ["calibration.seq_len=32", "evaluation.seq_len=32"]
    return ["experiment=smoke", f"model.path={folder}", "device=cpu", *lengths]


def sweep(cwd: Path, *overrides: str, fails: bool = False, **environment: str) -> subprocess.CompletedProcess:
    (cwd / "mine" / "calibration").mkdir(parents=True, exist_ok=True)
    (cwd / "mine" / "calibration" / "few.yaml").write_text("defaults: [bundled]\nsamples: 3\n")
    (cwd / "own.py").write_text(SCORE)
    done = statprune("-m", *overrides, cwd=cwd, fresh=True, **QUIET, **environment)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert "Warning" not in done.stderr or fails
    return done


def records(cwd: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (cwd / "outputs" / "smoke").glob("*/result.json")]


def measured(cwd: Path) -> dict:
    """What the four jobs measured, by method and seed."""
    results = {
        (each["config"]["method"]["name"], each["config"]["seed"]): (each["perplexity"], each["zero_shot"])
        for each in records(cwd)
    }
    assert len(results) == len(records(cwd)) == 4
    return results


@pytest.fixture(scope="module")
def expected(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same sweep one job after another, by Hydra's own launcher."""
    cwd = tmp_path_factory.mktemp("basic")
    sweep(cwd, *tiny(tiny_folder), *SWEEP)
    return measured(cwd)


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


def test_joblib_gives_the_numbers_of_one_process(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert measured(tmp_path) == expected


@pytest.fixture(scope="module")
def half_failed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the errors of a sweep of two jobs, of which one fails."""
    cwd = tmp_path_factory.mktemp("half")
    lengths = [*tiny(tiny_folder), "calibration.seq_len=65,32", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    return cwd, sweep(cwd, *lengths, fails=True).stderr


def test_a_job_that_fails_ends_in_its_sentence(half_failed):
    _, errors = half_failed
    assert "failed: calibration.seq_len=65 is longer than the model's 64 positions; lower it" in errors
    assert "Traceback" not in errors


def test_a_job_that_fails_does_not_stop_the_others(half_failed):
    cwd, _ = half_failed
    assert len(records(cwd)) == 1


def test_ray_gives_the_numbers_of_one_process(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2")
    assert measured(tmp_path) == expected


def test_submitit_without_slurm_gives_the_numbers_of_one_process(expected, tiny_folder, tmp_path):
    sweep(tmp_path, *tiny(tiny_folder), *SWEEP, "hydra/launcher=submitit_local")
    assert measured(tmp_path) == expected


@pytest.fixture(scope="module")
def swept_by_slurm(tiny_folder: Path, slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sweep."""
    cwd = tmp_path_factory.mktemp("slurm")
    sweep(cwd, *tiny(tiny_folder), *SWEEP, *SLURM, "hydra.launcher.partition=main", **slurm)
    return cwd


def test_slurm_gives_the_numbers_of_one_process(expected, swept_by_slurm):
    assert measured(swept_by_slurm) == expected


def test_every_job_of_slurm_has_a_log(swept_by_slurm):
    assert len(list(swept_by_slurm.glob("outputs/smoke/.submitit/*/*_log.out"))) == 4


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


@pytest.fixture(scope="module")
def searched(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[float, float], dict]:
    """What Optuna tried, as perplexities by alpha, and what it calls the best."""
    cwd = tmp_path_factory.mktemp("optuna")
    space = ["method.alpha=interval(0,2)", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]
    sweep(cwd, *tiny(tiny_folder), "method=cvr", *space)
    by_alpha = {each["config"]["method"]["alpha"]: each["perplexity"]["bundled"]["pruned"] for each in records(cwd)}
    return by_alpha, yaml.safe_load((cwd / "outputs" / "smoke" / "optimization_results.yaml").read_text())


def test_optuna_tries_values_of_its_space(searched):
    by_alpha, _ = searched
    assert len(by_alpha) == 3 and all(0 <= alpha <= 2 for alpha in by_alpha)


def test_optuna_minimises_the_perplexity(searched):
    by_alpha, best = searched
    assert best["best_value"] == min(by_alpha.values())
    assert by_alpha[best["best_params"]["method.alpha"]] == best["best_value"]
