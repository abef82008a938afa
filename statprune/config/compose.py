"""Find everything wrong with command-line overrides at once; Hydra alone stops at the first unknown key."""

import difflib
import functools
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.schema import parse_config
from statprune.errors import ConfigError

# what brings a launcher or sweeper: our extra, and the distribution of its plugin
PLUGINS = {
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "submitit_slurm": ("slurm", "hydra-submitit-launcher"),
    "submitit_local": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
    "optuna": ("optuna", "hydra-optuna-sweeper"),
}


def prepare_plugins() -> None:
    """Make our sweeper known, and drop the plugins' configs that conf/hydra has by the same name.

    Hydra looks for plugins in folders, where an editable installation has none; and it would take the configs for
    schemas of ours.
    """
    plugins = Plugins.instance()  # finds the others, which store their configs; it runs their modules anew
    from hydra_plugins.statprune_cells import CellSweeper

    plugins.register(CellSweeper)
    stored = ConfigStore.instance().repo["hydra"]
    for group in ("launcher", "sweeper"):
        own = files("statprune.conf") / "hydra" / group
        for name in [each.name for each in own.iterdir()]:
            stored[group].pop(name, None)


def override_problems(arguments: Sequence[str], multirun: bool = False) -> list[str]:
    """One sentence for every problem of the overrides and of the configurations they compose.

    Args:
        arguments: overrides without command-line flags; empty result: the jobs can start.
        multirun: an override may list several values; every combination is checked.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        return [f"an override can't be read: {str(error).splitlines()[0]}; write key=value"]
    swept = [override for override in overrides if override.is_sweep_override()]
    if swept and not multirun:
        return [f"{override.input_line} lists several values; add -m to run them all" for override in swept]
    # a sweeper's own search spaces (interval) are not listed, and checked when it draws from them
    listed = [override for override in overrides if not override.is_sweep_override() or override.is_discrete_sweep()]
    if len(listed) < len(overrides) and not any(override.key_or_group == "hydra/sweeper" for override in overrides):
        return [
            f"{override.input_line} needs a sweeper; add hydra/sweeper=optuna"
            for override in overrides
            if override not in listed
        ]
    (jobs,) = BasicSweeper.split_arguments(listed, None) if swept else ([list(arguments)],)
    given = {override.key_or_group: override.value() for override in overrides}
    if given.get("hydra/sweeper") == "cells":
        cells = _cells(given.get("hydra.sweeper.file"))
        if isinstance(cells, str):
            return [cells]
        jobs = [[*arguments, *cell] for cell in cells]
    with initialize_config_module("statprune.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        problems = [
            problem for job in jobs for problem in _problems(OverridesParser.create().parse_overrides(job), loader)
        ]
    return list(dict.fromkeys(problems))


def _cells(file: Any) -> list[list[str]] | str:
    """The jobs that a file lists, or what is wrong with it."""
    if file is None:
        return "hydra/sweeper=cells needs hydra.sweeper.file; name a JSON file with a list of lists of overrides"
    try:
        cells = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"hydra.sweeper.file={file} can't be read ({error}); name a JSON file with a list of lists of overrides"
    if not (isinstance(cells, list) and cells and all(isinstance(cell, list) for cell in cells)):
        return f"hydra.sweeper.file={file} holds no list of lists of overrides; write one list for each job"
    return [[str(override) for override in cell] for cell in cells]


def _problems(overrides: list[Override], loader: ConfigLoader) -> list[str]:
    groups = loader.list_groups("")
    problems: list[str] = []
    choices: list[str] = []
    values: list[Override] = []
    for override in overrides:
        key = override.key_or_group
        if not key:
            problems.append(f"{override.input_line} has no name before =; write key=value")
        elif key.startswith("hydra.") or override.input_line is None:
            continue
        elif key in ("hydra/launcher", "hydra/sweeper"):
            problem = _choice_problem(override, loader.get_group_options(key)) or _plugin_problem(override)
            problems += [problem] if problem else []
        elif key.startswith("hydra/"):
            continue
        elif key not in groups:
            values.append(override)
        elif problem := _choice_problem(override, loader.get_group_options(key)):
            problems.append(problem)
        else:
            choices.append(override.input_line)
    composed = _composed(tuple(choices))
    known = [override for override in values if override.is_add() or _has(composed, override.key_or_group)]
    problems += [_unknown(composed, override.key_or_group) for override in values if override not in known]
    try:
        composed = compose("config", choices + [str(override.input_line) for override in known])
        raw: Any = OmegaConf.to_container(composed, resolve=True)
        parse_config(raw)
    except (HydraException, OmegaConfBaseException) as error:
        problems.append(str(error).splitlines()[0])
    except ConfigError as error:
        problems += error.problems
    return problems


@functools.lru_cache(maxsize=64)
def _composed(choices: tuple[str, ...]) -> DictConfig:
    """What the groups' choices alone compose, which many jobs of a sweep share."""
    return compose("config", list(choices))


def _choice_problem(override: Override, options: list[str]) -> str | None:
    key, choice = override.key_or_group, override.value()
    if override.is_delete():
        return f"~{key} would leave the run without it; choose one of {', '.join(options)}"
    if choice in options or (choice is None and key == "experiment"):
        return None
    shown = "null" if choice is None else choice
    return f"{key}={shown} is not a choice; choose one of {', '.join(options)}"


def _plugin_problem(override: Override) -> str | None:
    """What the chosen launcher or sweeper lacks here; Hydra itself ends in a traceback."""
    extra, distribution = PLUGINS.get(str(override.value()), ("", ""))
    try:
        version(distribution or "statprune")
    except PackageNotFoundError:
        return f"{override.input_line} needs a package that is not installed; pip install 'statprune[{extra}]'"
    if override.value() == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        return f"{override.input_line} finds no sbatch or srun on this machine; start it where Slurm's commands are"
    return None


def _has(composed: DictConfig, key: str) -> bool:
    node: Any = composed
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node[part]
    return True


def _unknown(composed: DictConfig, key: str) -> str:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(composed, parent) if parent else composed
    if not isinstance(node, DictConfig):
        return f"{key} is not a key: {parent} is no group; see statprune --help"
    near = difflib.get_close_matches(name, map(str, node), 1)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{near[0]}?" if near else f"choose from {', '.join(prefix + str(k) for k in node)}"
    return f"{key} is not a key with these choices; {hint}"
