"""Find everything wrong with command-line overrides at once; Hydra alone stops at the first unknown key."""

import difflib
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.checks import parse_config
from statprune.config.compose import choice_names, compose, group_names, parse_overrides, plain_values
from statprune.config.grids import read_cells
from statprune.errors import ConfigError
from statprune.system.extras import install_command

# what brings a launcher or sweeper: our extra, and the distribution of its plugin
PLUGINS = {
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "submitit_slurm": ("slurm", "hydra-submitit-launcher"),
    "submitit_local": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
    "optuna": ("optuna", "hydra-optuna-sweeper"),
}


def override_problems(arguments: Sequence[str], multirun: bool = False) -> list[str]:
    """One sentence for every problem of the overrides and of the configurations they compose.

    Args:
        arguments: overrides without command-line flags.
        multirun: an override may list several values; every combination is checked.

    Returns:
        Nothing where the jobs can start.
    """
    try:
        overrides = parse_overrides(arguments)
    except HydraException as error:
        return [f"an override can't be read: {str(error).splitlines()[0]}; write key=value"]
    swept = [override for override in overrides if override.is_sweep_override()]
    if swept and not multirun:
        return [f"{override.input_line} lists several values; add -m to run them all" for override in swept]
    # a sweeper's own search spaces (interval) are not listed, and checked when it draws from them
    listed = [override for override in overrides if not override.is_sweep_override() or override.is_discrete_sweep()]
    values = {override.key_or_group: override.value() for override in overrides}
    if len(listed) < len(overrides) and "hydra/sweeper" not in values:
        return [
            f"{override.input_line} needs a sweeper; add hydra/sweeper=optuna"
            for override in overrides
            if override not in listed
        ]
    (jobs,) = BasicSweeper.split_arguments(listed, None) if swept else ([list(arguments)],)
    if values.get("hydra/sweeper") == "cells":
        try:
            jobs = [[*arguments, *cell] for cell in read_cells(values.get("hydra.sweeper.file"))]
        except ConfigError as error:
            return error.problems
    problems = [problem for job in jobs for problem in _job_problems(parse_overrides(job))]
    return list(dict.fromkeys(problems))


def output_folder(overrides: Sequence[str]) -> Path | None:
    """The folder that runs are written to, as far as the overrides say; None where it depends on the configuration."""
    folders = [override.partition("=")[2] for override in overrides if re.match(r"hydra\.(run|sweep)\.dir=", override)]
    folder = Path(folders[-1].strip("'\"") if folders else "outputs")
    return None if "${" in str(folder) else folder


def folder_problems(overrides: Sequence[str]) -> list[str]:
    """A sentence where the folder that runs are written to can't be made; Hydra itself ends in a traceback."""
    folder = output_folder(overrides)
    if folder is None:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return [
            f"the folder {folder} can't be written ({error.strerror}); run elsewhere, or give another hydra.run.dir"
        ]
    return []


def _job_problems(overrides: Sequence[Override]) -> list[str]:
    groups = group_names()
    problems: list[str] = []
    choices: list[str] = []
    values: list[Override] = []
    for override in overrides:
        key = override.key_or_group
        if not key:
            problems.append(f"{override.input_line} has no name before =; write key=value")
        elif key.startswith("hydra.") or override.input_line is None:
            continue
        elif key.startswith("hydra/"):
            problems += _hydra_problems(override)
        elif key not in groups:
            values.append(override)
        elif problem := _choice_problem(override, choice_names(key)):
            problems.append(problem)
        else:
            choices.append(override.input_line)
    return problems + _value_problems(choices, values)


def _value_problems(choices: list[str], values: Sequence[Override]) -> list[str]:
    """What is wrong with keys and values beside choices that exist."""
    chosen = compose(choices).config
    existing = [override for override in values if override.is_add() or _has_key(chosen, override.key_or_group)]
    problems = [_unknown_key(chosen, override.key_or_group) for override in values if override not in existing]
    try:
        parse_config(plain_values(compose(choices + [str(override.input_line) for override in existing]).config))
    except (HydraException, OmegaConfBaseException) as error:
        problems.append(str(error).splitlines()[0])
    except ConfigError as error:
        problems += error.problems
    return problems


def _hydra_problems(override: Override) -> list[str]:
    """What is wrong with the choice of a launcher or sweeper; other groups of Hydra's are its own business."""
    if override.key_or_group not in ("hydra/launcher", "hydra/sweeper"):
        return []
    problem = _choice_problem(override, choice_names(override.key_or_group)) or _plugin_problem(override)
    return [problem] if problem else []


def _choice_problem(override: Override, options: Sequence[str]) -> str | None:
    key, choice = override.key_or_group, override.value()
    if override.is_delete():
        return f"~{key} would leave the run without it; choose one of {', '.join(options)}"
    if choice in options:
        return None
    shown = "null" if choice is None else choice
    return f"{key}={shown} is not a choice; choose one of {', '.join(options)}"


def _plugin_problem(override: Override) -> str | None:
    """What the chosen launcher or sweeper lacks here; Hydra itself ends in a traceback."""
    extra, distribution = PLUGINS.get(str(override.value()), ("", ""))
    try:
        version(distribution or "statprune")
    except PackageNotFoundError:
        return f"{override.input_line} needs a package that is not installed; run {install_command(extra)}"
    if override.value() == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        return f"{override.input_line} finds no sbatch or srun on this machine; start it where Slurm's commands are"
    return None


def _has_key(config: DictConfig, key: str) -> bool:
    node: object = config
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node:
            return False
        node = node[name]
    return key != "hydra"  # its keys are checked by Hydra


def _unknown_key(config: DictConfig, key: str) -> str:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return f"{key} is not a key: {parent} is no group; see statprune --help"
    names = [str(other) for other in node if other != "hydra"]
    near = difflib.get_close_matches(name, names, 1)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{near[0]}?" if near else f"choose from {', '.join(prefix + k for k in names)}"
    return f"{key} is not a key with these choices; {hint}"
