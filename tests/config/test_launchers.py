"""Sweeps over several machines or by Weights & Biases, as far as it shows without their packages."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import yaml
from hydra import compose as compose_raw
from hydra import initialize_config_module
from omegaconf import OmegaConf

from statprune.config import compose
from statprune.config.compose import PLUGINS, override_problems, prepare_plugins
from statprune.system import gpu_slots as slots
from tests.helpers.command import composed

SWEEPS = sorted((Path(__file__).parents[2] / "experiments" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_sweeps_name_keys_and_values_that_a_run_takes(path):
    described = yaml.safe_load(path.read_text())
    assert described["command"] == ["statprune", "tracking=online", "${args_no_hyphens}"]
    assert described["method"] in ("grid", "bayes")
    assert described["metric"] == {"name": "perplexity/bundled", "goal": "minimize"}
    for bound in (0, -1):
        values = {key: list(_values(space))[bound] for key, space in described["parameters"].items()}
        overrides = [*described["command"][1:-1], *(f"{key}={value}" for key, value in values.items())]
        assert override_problems(overrides) == []
        assert composed(*overrides).method == "cvr"


def _values(space: dict):
    """A parameter's values, or its bounds; floats, or W&B would draw whole numbers between them."""
    if "min" in space:
        assert isinstance(space["min"], float) and isinstance(space["max"], float)
        return space["min"], space["max"]
    return space.get("values", [space.get("value")])


@pytest.mark.parametrize("choice,extra", [("joblib", "joblib"), ("submitit_slurm", "slurm"), ("ray", "ray")])
def test_a_launcher_whose_package_is_missing_names_it(monkeypatch, choice, extra):
    _without_plugins(monkeypatch)
    (problem,) = override_problems([f"hydra/launcher={choice}", "method=magnitude,wanda", "seed=0,1"], multirun=True)
    assert problem == (
        f"hydra/launcher={choice} needs a package that is not installed; pip install 'statprune[{extra}]'"
    )


def test_search_spaces_need_optuna(monkeypatch):
    (problem,) = override_problems(["method.alpha=interval(0,1)"], multirun=True)
    assert problem == "method.alpha=interval(0,1) needs a sweeper; add hydra/sweeper=optuna"
    _without_plugins(monkeypatch)
    (problem,) = override_problems(["method.alpha=interval(0,1)", "hydra/sweeper=optuna"], multirun=True)
    assert "pip install 'statprune[optuna]'" in problem


def test_launchers_are_checked(monkeypatch):
    monkeypatch.setattr(compose, "version", lambda name: "1")
    monkeypatch.setattr("shutil.which", lambda name: None)
    (problem,) = override_problems(["hydra/launcher=jobib"])
    assert "hydra/launcher=jobib is not a choice; choose one of basic, joblib, ray" in problem
    (problem,) = override_problems(["hydra/launcher=submitit_slurm"])
    assert "finds no sbatch or srun on this machine" in problem
    assert override_problems(["hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "hydra/job_logging=none"]) == []


@pytest.mark.parametrize("choice", ["joblib", "submitit_slurm", "ray"])
def test_launcher_presets_compose_and_name_their_plugin(choice):
    prepare_plugins()
    with initialize_config_module("statprune.conf", version_base="1.3"):
        config = compose_raw("config", [f"hydra/launcher={choice}"], return_hydra_config=True)
    launcher = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    distribution = PLUGINS[choice][1].replace("-", "_")
    assert launcher["_target_"].startswith(f"hydra_plugins.{distribution}.")


def test_workers_on_one_machine_take_different_gpus(monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    others = []
    for _ in range(3):  # three workers: locks count between processes and, as here, between sockets of one
        monkeypatch.setattr(slots, "_held", [])
        slots.take_gpu()
        slots.take_gpu()
        others.append(slots._held)
    assert taken == [0, 1, 0]
    others[1][0].close()  # the second one ends
    monkeypatch.setattr(slots, "_held", [])
    slots.take_gpu()
    assert taken == [0, 1, 0, 1]
    for held in (*others, slots._held):
        held[0].close()


def _without_plugins(monkeypatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(compose, "version", version)


def test_a_file_of_cells_lists_jobs_and_what_is_wrong_with_one_is_told(tmp_path):
    asked = ["hydra/sweeper=cells"]
    assert "needs hydra.sweeper.file" in override_problems(asked, multirun=True)[0]
    file = tmp_path / "cells.json"
    asked.append(f"hydra.sweeper.file={file}")
    assert "can't be read" in override_problems(asked, multirun=True)[0]
    for text, message in (("[]", "no list of lists"), ('{"a": 1}', "no list of lists"), ("[", "can't be read")):
        file.write_text(text)
        assert message in override_problems(asked, multirun=True)[0]
    file.write_text(json.dumps([["method=wanda", "seed=1"], ["method=wnda"], ["sparsity.ratio=2"]]))
    problems = override_problems(asked, multirun=True)
    assert len(problems) == 2 and "method=wnda" in problems[0] and "sparsity.ratio=2.0" in problems[1]
    file.write_text(json.dumps([["method=wanda", "seed=1"], ["method=ria", "sparsity='2_4'"]]))
    assert override_problems(asked, multirun=True) == []
