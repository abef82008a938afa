"""Names of runs' folders: what a person asks for first, and a short hash of everything else that was changed."""

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from statprune.config.compose import default_choices, plain_choices, plain_values
from statprune.config.schema import NOT_IN_HASH, digest
from statprune.config.swept import name_patterns, with_words
from statprune.model.location import model_name

SWITCHES = ("columns", "rows", "mean", "scale")  # halves of a compensation
ORDERS = ("rows", "energy")  # what a compensation can begin with, by keys such as rows_first
# keys that the name shows in words
NAMED_KEYS = (
    "seed",
    "sparsity.ratio",
    "sparsity.keep",
    "sparsity.of",
    "sparsity.allocation",
    *(f"compensation.{switch}" for switch in SWITCHES),
    *(f"compensation.{order}_first" for order in ORDERS),
)


MOST_OF_A_RUN = 100  # characters of a run's name in the name of another run, which prunes or measures its model


def run_name(*, _root_: DictConfig) -> str:
    """The name of a run's folder, as a resolver of Hydra's.

    Args:
        _root_: the composed configuration with Hydra's own part; resolvers get it under this name.
    """
    choices = OmegaConf.select(_root_, "hydra.runtime.choices") or {}
    return name_of(plain_values(_root_), dict(choices))


def name_of(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> str:
    """model_calibration_pattern_method_compensation_sSEED; keys unlike what the groups' choices hold; their hash.

    Args:
        config: the composed configuration as plain values.
        choices: of the groups.
    """
    method = config["method"]["name"]
    components = [
        _model_component(str(config["model"]["path"])),
        config["calibration"]["source"],
        _pattern_name(config["sparsity"], method),
        method,
        _compensation_name(config["compensation"]),
        f"s{config['seed']}",
    ]
    other = _unnamed_changes(config, choices)
    name = _plain("_".join(map(str, components)))
    return with_words(name, other, _hashed_leaves(config), digest(other, 8)) if other else name


def other_names(name: str, model_path: str) -> list[str]:
    """What the folder of the same run may be called by another version of statprune, as patterns of ``Path.glob``.

    Args:
        name: of a run's folder.
        model_path: of its configuration.
    """
    patterns = name_patterns(name)
    today, before = _plain(_model_component(model_path)), _plain(Path(model_path).name)
    if today != before and name.startswith(f"{today}_"):  # a saved model was called by the last part of its path
        earlier = before + name.removeprefix(today)
        patterns += name_patterns(earlier) or [glob.escape(earlier)]
    return patterns


def _model_component(path: str) -> str:
    """The model in a run's name; a run's own name, which it has where that run saved it, may have to be cut."""
    name = model_name(path)
    return name.removesuffix(".gguf") if name == Path(path).name else name[:MOST_OF_A_RUN]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]", "-", text)


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Full names of keys that change a number and whose values differ between two configurations."""
    first, second = _hashed_leaves(before), _hashed_leaves(now)
    absent = object()
    return sorted(key for key in first | second if first.get(key, absent) != second.get(key, absent))


def pattern_tag(sparsity: Mapping[str, Any], method: str) -> str:
    """The pattern as people write it: 2:4, 0.5, owl0.5; given for a list of ratios."""
    return _pattern_name(sparsity, method).replace("_", ":")


def _pattern_name(sparsity: Mapping[str, Any], method: str) -> str:
    if method == "dense":
        return "dense"
    if sparsity["keep"] is not None:
        return f"{sparsity['keep']}_{sparsity['of']}"
    if sparsity["layer_ratios"] is not None:
        return "given"
    ratio = 0.5 if sparsity["ratio"] is None else sparsity["ratio"]
    return str(ratio) if sparsity["allocation"] == "uniform" else f"{sparsity['allocation']}{ratio}"


def _compensation_name(compensation: Mapping[str, Any]) -> str:
    switches = {switch: compensation[switch] for switch in SWITCHES if switch in compensation}
    on = [switch for switch, is_on in switches.items() if is_on]
    words = [] if len(on) == len(switches) else on or ["off"]
    words += [word for order in ORDERS if compensation.get(f"{order}_first") for word in (order, "first")]
    return "-".join([str(compensation["name"]), *words])


def _unnamed_changes(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> dict[str, object]:
    """Values unlike those that the chosen groups alone compose, without what the name shows in words."""
    shows_pattern = config["method"]["name"] != "dense" and config["sparsity"]["layer_ratios"] is None
    groups = {group: choice for group, choice in choices.items() if choice and not group.startswith("hydra/")}
    # no word of the name tells of the evaluation: any other than the default, or the experiment's, is a difference
    if "experiment" in groups or groups.get("evaluation") != default_choices()["evaluation"]:
        groups.pop("evaluation", None)
    if not shows_pattern:
        groups.pop("sparsity", None)
    plain, values = plain_choices(groups), _hashed_leaves(config)
    shown = [key for key in NAMED_KEYS if shows_pattern or not key.startswith("sparsity.")]
    return {key: values.get(key) for key in differing_keys(plain, config) if key not in shown}


def _hashed_leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Values by full name that can change a number; 1.0 and 1 are the same."""
    leaves: dict[str, object] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not prefix and key in NOT_IN_HASH:
            continue
        if isinstance(value, dict) and value:
            leaves |= _hashed_leaves(value, f"{name}.")
        else:
            leaves[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return leaves
