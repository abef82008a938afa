"""Find everything wrong with command-line overrides at once; Hydra alone stops at the first unknown key."""

import difflib
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from statprune.config import parse_config
from statprune.errors import ConfigError


def override_problems(arguments: Sequence[str]) -> list[str]:
    """One sentence for every problem of the overrides and of the configuration they compose.

    Args:
        arguments: overrides without command-line flags, as for one job; empty result: the job can start.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        return [f"an override can't be read: {str(error).splitlines()[0]}; write key=value"]
    with initialize_config_module("statprune.conf", version_base="1.3"):
        return _problems(overrides, GlobalHydra.instance().config_loader())


def _problems(overrides: list[Override], loader: ConfigLoader) -> list[str]:
    groups = loader.list_groups("")
    problems: list[str] = []
    choices: list[str] = []
    values: list[Override] = []
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra.") or override.input_line is None:
            continue
        if key not in groups:
            values.append(override)
            continue
        choice, options = override.value(), loader.get_group_options(key)
        if choice is None or choice in options:
            choices.append(override.input_line)
        else:
            problems.append(f"{key}={choice} is not a choice; choose one of {', '.join(options)}")
    composed = compose("config", choices)
    known = [override for override in values if override.is_add() or _has(composed, override.key_or_group)]
    problems += [_unknown(composed, override.key_or_group) for override in values if override not in known]
    try:
        composed = compose("config", choices + [str(override.input_line) for override in known])
        raw: Any = OmegaConf.to_container(composed, resolve=True)
        parse_config(raw)
    except HydraException as error:
        problems.append(str(error).splitlines()[0])
    except ConfigError as error:
        problems += error.problems
    return problems


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
