"""Find everything wrong with command-line overrides at once; Hydra alone stops at the first unknown key."""

import difflib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.checks import parse_config
from statprune.config.choices import LIST_KEYS
from statprune.config.compose import (
    Composition,
    choice_names,
    compose,
    default_choices,
    group_names,
    parse_overrides,
    plain_values,
    set_by_file,
)
from statprune.config.composing import composing_problem
from statprune.config.grids import grid_problems, read_cells
from statprune.config.hydra_choices import choice_problem, hydra_group_problems
from statprune.config.hydra_part import hydra_part_problems
from statprune.config.operators import key_problem
from statprune.config.place import current_place, searched_folders
from statprune.config.run_folder import link_problem
from statprune.config.secrets import composed_secrets, typed_secrets
from statprune.config.unreadable import unreadable_overrides
from statprune.errors import ConfigError, StatpruneError, first_line


def override_problems(arguments: Sequence[str], multirun: bool = False) -> list[str]:
    """One sentence for every problem of the overrides and of the configurations they compose.

    Args:
        arguments: overrides without command-line flags.
        multirun: an override may list several values; every combination is checked.

    Returns:
        Nothing where the jobs can start.
    """
    if typed := [problem for argument in arguments for problem in typed_secrets(argument)]:
        return typed
    try:
        overrides = parse_overrides(arguments)
    except HydraException as error:
        found = unreadable_overrides(arguments)
        return found or [f"an override can't be read: {first_line(error)}; write key=value"]
    swept = [override for override in overrides if override.is_sweep_override()]
    if swept and not multirun:
        return [_lists_several(override) for override in swept]
    if of_hydra := [override for override in swept if override.is_hydra_override()]:
        return [f"{override.input_line} holds for a whole sweep; give one value" for override in of_hydra]
    # a sweeper's own search spaces (interval) are not listed, and checked when it draws from them
    listed = [override for override in overrides if not override.is_sweep_override() or override.is_discrete_sweep()]
    values = {override.key_or_group: override.value() for override in overrides}
    if len(listed) < len(overrides) and "hydra/sweeper" not in values:
        return [
            f"{override.input_line} needs a sweeper; add hydra/sweeper=optuna"
            for override in overrides
            if override not in listed
        ]
    if problems := grid_problems(listed):
        return problems
    (jobs,) = BasicSweeper.split_arguments(listed, None) if swept else ([list(arguments)],)
    if values.get("hydra/sweeper") == "cells":
        try:
            jobs = [[*arguments, *cell] for cell in read_cells(values.get("hydra.sweeper.file"))]
        except ConfigError as error:
            return error.problems
    problems = [problem for job in jobs for problem in _problems_of_a_job(job)]
    return list(dict.fromkeys(problems or hydra_part_problems(jobs[0], multirun)))


def _problems_of_a_job(arguments: Sequence[str]) -> list[str]:
    try:
        return _job_problems(parse_overrides(arguments))
    except HydraException:  # what a file of cells lists
        return unreadable_overrides(arguments)


def named_plugins(arguments: Sequence[str]) -> list[str]:
    """The plugins that a command names, before anything is composed: what they bring may be chosen.

    Args:
        arguments: overrides without command-line flags.

    Returns:
        Those of the override ``plugins``, or else of the experiment's file, or of the primary configuration.
    """
    try:
        overrides = parse_overrides(arguments)
    except HydraException:
        return []  # reported elsewhere
    given = [override.value() for override in overrides if override.key_or_group == "plugins"]
    experiments = [override for override in overrides if override.key_or_group == "experiment"]
    files = [f"experiment/{choice}" for override in experiments for choice in _choices_of(override)]
    found: list[object] = [*given[-1:]] or [set_by_file(file, "plugins") for file in [*files, current_place().name]]
    lists = [[names] if isinstance(names, str) else names for names in found]
    return [str(name) for names in lists if isinstance(names, Sequence) for name in names]


def searchpath_of(arguments: Sequence[str]) -> Sequence[str]:
    """The folders that a command adds with ``hydra.searchpath``.

    Raises:
        ConfigError: it is no list of folders.
    """
    try:
        overrides = parse_overrides(arguments)
    except HydraException:
        return []  # reported elsewhere
    given = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
    return searched_folders(given[0]) if given else []


def _lists_several(override: Override) -> str:
    """What a command without -m means by several values: a list, if the key takes one, or a sweep."""
    key, values = override.key_or_group, str(override.input_line).partition("=")[2]
    advice = "add -m to run them all"
    if key in LIST_KEYS:
        advice = f"write '{key}=[{values}]' for all of them together, or add -m for a run with each"
    return f"{override.input_line} lists several values; {advice}"


def _choices_of(override: Override) -> list[str]:
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [] if override.is_sweep_override() else [str(override.value())]


def output_folder(overrides: Sequence[str]) -> Path | None:
    """The folder that runs are written to, as far as the overrides say; None where it depends on the configuration."""
    folders = [
        override.partition("=")[2] for override in overrides if re.match(r"\+*hydra\.(run|sweep)\.dir=", override)
    ]
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
            problems += hydra_group_problems(override)
        elif key not in groups:
            values.append(override)
        elif problem := choice_problem(override, choice_names(key), key in default_choices()):
            problems.append(problem)
        else:
            choices.append(override.input_line)
    return problems + _value_problems(choices, values)


def _value_problems(choices: list[str], values: Sequence[Override]) -> list[str]:
    """What is wrong with keys and values beside choices that exist."""
    try:
        base = compose(choices)
    except ConfigError as error:
        return error.problems
    except (HydraException, OmegaConfBaseException, StatpruneError) as error:
        return [composing_problem(error)]
    problems: list[str] = []
    good: list[str] = []
    for override in values:
        exists = _has_key(base.config, override.key_or_group)
        if problem := key_problem(override, exists):
            problems.append(problem)
        elif exists or override.is_add():
            good.append(str(override.input_line))
        else:
            problems.append(_unknown_key(base, override.key_or_group))
    return problems + _composed_problems(choices + good)


def _composed_problems(overrides: Sequence[str]) -> list[str]:
    """What is wrong with the configuration that overrides compose, whose keys exist."""
    try:
        composed = compose(overrides).config
        if found := composed_secrets(composed):
            return found
        if absent := sorted(OmegaConf.missing_keys(composed)):
            return [f"{key} has no value (???); give {key}=VALUE" for key in absent]
        problem = link_problem(parse_config(plain_values(composed)).settings.name)
    except ConfigError as error:
        return error.problems
    except (HydraException, OmegaConfBaseException, StatpruneError) as error:  # the last is a plugin's
        return [composing_problem(error)]
    return [problem] if problem else []


def _has_key(config: DictConfig, key: str) -> bool:
    node: object = config
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node.keys():  # noqa: SIM118 - "in node" resolves the value
            return False
        node = node._get_node(name)
    return key != "hydra"  # its keys are checked by Hydra


def _unknown_key(base: Composition, key: str) -> str:
    config = base.config
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        near = difflib.get_close_matches(parent, [str(other) for other in config], 1)
        hint = f"did you mean {near[0]}.{name}?" if near else "see statprune options"
        return f"{key} is not a key: {parent} is no group; {hint}"
    names = [str(other) for other in node if other != "hydra"]
    near = difflib.get_close_matches(name, names, 1)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{near[0]}?" if near else f"choose from {', '.join(prefix + k for k in names)}"
    choice = base.choices.get(parent)
    return f"{key} is not a key with {f'{parent}={choice}' if choice else 'these choices'}; {hint}"
