"""Names of runs' folders: what a person asks for first, and a short hash of everything else that was changed."""

import glob
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from statprune.config.choices import LIST_KEYS, NONE
from statprune.config.compose import default_choices, plain_choices, plain_values
from statprune.config.place import ConfigPlace, place_of_job
from statprune.config.schema import NOT_IN_HASH, digest
from statprune.config.swept import name_patterns, with_words
from statprune.core.compensation import COMPENSATIONS, Compensation
from statprune.core.methods import DENSE
from statprune.errors import StatpruneError
from statprune.model.location import model_name
from statprune.pruning.allocation import UNIFORM
from statprune.system.options import build

# keys that the name shows in words, besides those that a compensation's variant tells of
NAMED_KEYS = (
    "seed",
    "sparsity.ratio",
    "sparsity.keep",
    "sparsity.of",
    "sparsity.pattern",
    "sparsity.allocation",
    "refinement.name",
    "quantize.name",
)


LONGEST_MODEL = 180  # bytes of a model's name in that of a run, which a file system takes with what follows
MOST_OF_A_RUN = 100  # characters of a run's name in the name of another run, which prunes or measures its model


def run_name(*, _root_: DictConfig) -> str:
    """The name of a run's folder, as a resolver of Hydra's.

    Args:
        _root_: the composed configuration with Hydra's own part; resolvers get it under this name.
    """
    choices = OmegaConf.select(_root_, "hydra.runtime.choices") or {}
    return name_of(plain_values(_root_), dict(choices), place_of_job(_root_.hydra))


def name_of(config: Mapping[str, Any], choices: Mapping[str, str | None], place: ConfigPlace | None = None) -> str:
    """model_calibration_pattern_method_compensation_sSEED; keys unlike what the groups' choices hold; their hash.

    A refinement stands after the method, and quantisation before the seed.

    Args:
        config: the composed configuration as plain values.
        choices: of the groups.
        place: of the configuration files; None: the command's.
    """
    method = config["method"]["name"]
    refinement, quantize = refinement_name(config), quantize_name(config)
    components = [
        _model_component(str(config["model"]["path"])),
        config["calibration"]["source"],
        _pattern_name(config["sparsity"], method),
        method,
        *([refinement] if refinement != NONE else []),
        _compensation_name(config["compensation"]),
        *([quantize] if quantize != NONE else []),
        f"s{config['seed']}",
    ]
    other = _unnamed_changes(config, choices, place)
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
    if name != Path(path).name:
        return name[:MOST_OF_A_RUN]
    name = name.removesuffix(".gguf")
    if len(os.fsencode(name)) <= LONGEST_MODEL:
        return name
    return f"{name[: LONGEST_MODEL // 4]}-{digest(name, 8)}"  # a letter may have four bytes


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
    if method == DENSE:
        return DENSE
    if sparsity.get("pattern") is not None:
        numbers = [sparsity[key] for key in ("ratio", "keep", "of") if sparsity[key] is not None]
        return "_".join(map(str, [sparsity["pattern"], *numbers]))
    if sparsity["keep"] is not None:
        return f"{sparsity['keep']}_{sparsity['of']}"
    if sparsity["layer_ratios"] is not None:
        return "given"
    ratio = 0.5 if sparsity["ratio"] is None else sparsity["ratio"]
    return str(ratio) if sparsity["allocation"] == UNIFORM else f"{sparsity['allocation']}{ratio}"


def compensation_label(options: Mapping[str, Any]) -> str:
    """What tables and figures call a compensation; one whose plugin is not installed is called by its name.

    Args:
        options: of the section, with its name.
    """
    name, compensation = str(options["name"]), _compensation(options)
    return name if compensation is None else compensation.label(name)


def _compensation_name(options: Mapping[str, Any]) -> str:
    compensation = _compensation(options)
    words = () if compensation is None else compensation.variant()
    return "-".join([str(options["name"]), *(word.replace(" ", "-") for word in words)])


def _compensation(options: Mapping[str, Any]) -> Compensation | None:
    """The compensation itself; None where there is none, or no such one is installed."""
    cls = _compensation_class(options)
    values = {key: value for key, value in options.items() if key != "name"}
    return None if cls is None else build(cls, values, "compensation.").value


def _compensation_class(options: Mapping[str, Any]) -> type[Compensation] | None:
    name = str(options["name"])
    try:
        return COMPENSATIONS.get(name) if name in COMPENSATIONS else None
    except StatpruneError:  # of a plugin; whoever uses it is told
        return None


def refinement_name(config: Mapping[str, Any]) -> str:
    """The name of a configuration's refinement; configurations of older versions have none."""
    return str((config.get("refinement") or {}).get("name", NONE))


def quantize_name(config: Mapping[str, Any]) -> str:
    """How a configuration's models are quantised; configurations of older versions don't."""
    return str((config.get("quantize") or {}).get("name", NONE))


def _unnamed_changes(
    config: Mapping[str, Any], choices: Mapping[str, str | None], place: ConfigPlace | None
) -> dict[str, object]:
    """Values unlike those that the chosen groups alone compose, without what the name shows in words."""
    shows_pattern = config["method"]["name"] != DENSE and config["sparsity"]["layer_ratios"] is None
    groups = {group: choice for group, choice in choices.items() if choice and not group.startswith("hydra/")}
    # no word of the name tells of the evaluation: any other than the default, or the experiment's, is a difference
    if "experiment" in groups or groups.get("evaluation") != default_choices(place).get("evaluation"):
        groups.pop("evaluation", None)
    if not shows_pattern:
        groups.pop("sparsity", None)
    groups = _reference_choices(groups, config, place)
    plain, values = plain_choices(groups, place), _hashed_leaves(config)
    compensation = _compensation_class(config["compensation"])
    of_variant = [f"compensation.{key}" for key in (compensation.named_options if compensation is not None else ())]
    shown = [key for key in (*NAMED_KEYS, *of_variant) if shows_pattern or not key.startswith("sparsity.")]
    return {key: values.get(key) for key in differing_keys(plain, config) if key not in shown}


def _reference_choices(
    groups: Mapping[str, str], config: Mapping[str, Any], place: ConfigPlace | None
) -> dict[str, str]:
    """The choices that a name tells of: a user's own file is told apart by what it changes in the choice it names.

    ``method=mine`` with ``name: ria`` in its file is named as ria is, and differs from it in the options it sets. So
    does a preset of ours, where no word tells of it, as a compensation's variant does.
    """
    shown = {
        "method": config["method"]["name"],
        "refinement": refinement_name(config),
        "compensation": config["compensation"]["name"],
        "quantize": quantize_name(config),
        "calibration": config["calibration"]["source"],
    }
    if config["sparsity"].get("pattern") is not None:
        shown["sparsity"] = config["sparsity"]["pattern"]
    own = files("statprune.conf")
    result = {}
    for group, choice in groups.items():
        is_told = group != "method" and (own / group / f"{choice}.yaml").is_file()
        is_ours = is_told or shown.get(group) == choice
        reference = choice if is_ours else shown.get(group, default_choices(place).get(group))
        if reference is not None:  # an experiment of the user's has none: what it sets are changes
            result[group] = str(reference)
    return result


def _hashed_leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Values by full name that can change a number; 1.0 and 1 are the same, and a text and a list of it."""
    leaves: dict[str, object] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NOT_IN_HASH:
            continue
        if isinstance(value, dict) and value:
            leaves |= _hashed_leaves(value, f"{name}.")
        else:
            value = [value] if name in LIST_KEYS and isinstance(value, str) else value
            leaves[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return leaves
