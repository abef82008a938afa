"""Sweeps over several machines or by Weights & Biases, as far as it shows without their packages."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import yaml
from hydra import compose as compose_with_hydra
from hydra import initialize_config_module
from omegaconf import OmegaConf

from statprune.config.hydra_choices import PLUGINS
from statprune.config.overrides import override_problems
from statprune.config.place import prepare_plugins
from statprune.system.extras import install_command
from tests.helpers.command import composed

SWEEPS = sorted((Path(__file__).parents[2] / "experiments" / "sweeps").glob("*.yaml"))
LAUNCHERS = [("joblib", "joblib"), ("submitit_slurm", "slurm"), ("ray", "ray")]  # with the extra that brings each


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_wandb_sweep_starts_the_command_and_minimises_the_perplexity(path):
    described = yaml.safe_load(path.read_text())
    assert described["command"] == ["statprune", "tracking=online", "${args_no_hyphens}"]
    assert described["method"] in ("grid", "bayes")
    assert described["metric"] == {"name": "perplexity/bundled", "goal": "minimize"}


@pytest.mark.parametrize("bound", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_wandb_sweep_names_keys_and_values_that_a_run_takes(path, bound):
    described = yaml.safe_load(path.read_text())
    values = {key: list(bounds_or_values(space))[bound] for key, space in described["parameters"].items()}
    overrides = [*described["command"][1:-1], *(f"{key}={value}" for key, value in values.items())]
    assert override_problems(overrides) == []
    assert composed(*overrides).method_name == "cvr"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_bounds_of_a_wandb_sweep_are_floats_or_it_would_draw_whole_numbers(path):
    spaces = yaml.safe_load(path.read_text())["parameters"].values()
    bounds = [space[end] for space in spaces if "min" in space for end in ("min", "max")]
    assert all(isinstance(bound, float) for bound in bounds)


def bounds_or_values(space):
    """A parameter's bounds, or its values."""
    return (space["min"], space["max"]) if "min" in space else space.get("values", [space.get("value")])


@pytest.fixture
def no_plugins(monkeypatch):
    """No launcher and no sweeper is installed."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("statprune.config.hydra_choices.version", version)


@pytest.fixture
def all_plugins(monkeypatch):
    """Every launcher and sweeper is installed, but Slurm's commands are not there."""
    monkeypatch.setattr("statprune.config.hydra_choices.version", lambda name: "1")
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.mark.parametrize("choice,extra", LAUNCHERS)
def test_a_launcher_whose_package_is_missing_names_it(no_plugins, choice, extra):
    (problem,) = override_problems([f"hydra/launcher={choice}", "method=magnitude,wanda", "seed=0,1"], multirun=True)
    assert problem == f"hydra/launcher={choice} needs a package that is not installed; run {install_command(extra)}"


def test_a_search_space_needs_a_sweeper():
    (problem,) = override_problems(["method.alpha=interval(0,1)"], multirun=True)
    assert problem == "method.alpha=interval(0,1) needs a sweeper; add hydra/sweeper=optuna"


def test_a_sweeper_whose_package_is_missing_names_it(no_plugins):
    (problem,) = override_problems(["method.alpha=interval(0,1)", "hydra/sweeper=optuna"], multirun=True)
    assert problem.endswith(f"run {install_command('optuna')}")


def test_a_launcher_that_does_not_exist_is_a_problem_that_lists_those_that_do(all_plugins):
    (problem,) = override_problems(["hydra/launcher=jobib"])
    assert "hydra/launcher=jobib is not a choice; choose one of basic, joblib, ray" in problem


def test_slurm_needs_its_commands(all_plugins):
    (problem,) = override_problems(["hydra/launcher=submitit_slurm"])
    assert "finds no sbatch or srun on this machine" in problem


def test_a_launcher_that_is_installed_and_its_keys_are_no_problem(all_plugins):
    assert override_problems(["hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "hydra/job_logging=none"]) == []


@pytest.mark.parametrize("choice", [choice for choice, _ in LAUNCHERS])
def test_launcher_presets_compose_and_name_their_plugin(choice):
    prepare_plugins()
    with initialize_config_module("statprune.conf", version_base="1.3"):
        config = compose_with_hydra("config", [f"hydra/launcher={choice}"], return_hydra_config=True)
    launcher = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    distribution = PLUGINS[choice][1].replace("-", "_")
    assert launcher["_target_"].startswith(f"hydra_plugins.{distribution}.")
