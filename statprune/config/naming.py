"""Names of runs' folders: what a person asks for first, and a short hash of whatever else was changed."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

NOT_IN_HASH = ("name", "tracking", "verbose", "save_model", "offload", "activations", "rerun", "cache")
SWITCHES = ("columns", "rows", "mean", "scale")  # halves of a compensation
ORDERS = ("rows", "energy")  # what a compensation can begin with, by keys such as rows_first
# what the name shows in words
NAMED = (
    "seed",
    "sparsity.ratio",
    "sparsity.keep",
    "sparsity.of",
    "sparsity.allocation",
    *(f"compensation.{part}" for part in SWITCHES),
    *(f"compensation.{part}_first" for part in ORDERS),
)


def run_name(*, _root_: DictConfig) -> str:
    """model_calibration_pattern_method_compensation_sSEED, and a hash of keys unlike what the groups' choices hold."""
    model = Path(str(_root_.model.path)).name.removesuffix(".gguf")
    parts = [
        model,
        _root_.calibration.source,
        _pattern_name(_root_.sparsity, _root_.method.name),
        _root_.method.name,
        _compensation_name(_root_.compensation),
        f"s{_root_.seed}",
    ]
    other = _other_keys(_root_)
    if other:
        parts.append(digest(other, 8))
    return re.sub(r"[^\w.-]", "-", "_".join(map(str, parts)))


def plain_values(config: DictConfig) -> dict[str, Any]:
    """A composed configuration without Hydra's own part, resolved."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result: Any = OmegaConf.to_container(own, resolve=True)
    return result


def digest(value: Any, digits: int) -> str:
    """Hexadecimal digits of a hash of plain values; what is none counts as it is written."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:digits]


def differing_keys(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Full names of keys that change a number and whose values differ."""
    first, second = _numbers(before), _numbers(now)
    absent = object()
    return sorted(key for key in first | second if first.get(key, absent) != second.get(key, absent))


def pattern_tag(sparsity: Mapping[str, Any], method: str) -> str:
    """The pattern as people write it: 2:4, 0.5, owl0.5, given."""
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
    switches = {part: compensation[part] for part in SWITCHES if part in compensation}
    on = [part for part, is_on in switches.items() if is_on]
    words = [] if len(on) == len(switches) else on or ["off"]
    words += [word for part in ORDERS if compensation.get(f"{part}_first") for word in (part, "first")]
    return "-".join([str(compensation["name"]), *words])


def _other_keys(config: DictConfig) -> dict[str, Any]:
    """Values unlike those that the chosen groups alone compose; what the name shows is left out."""
    shows_pattern = config.method.name != "dense" and config.sparsity.layer_ratios is None
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    # no part of the name tells of the evaluation: another than the default's is a difference
    named = {key: value for key, value in choices.items() if value and key != "evaluation"}
    if not shows_pattern:
        named.pop("sparsity", None)
    plain = _composed(tuple(sorted((k, v) for k, v in named.items() if not k.startswith("hydra/"))))
    here = plain_values(config)
    changed = differing_keys(plain, here)
    values = _numbers(here)
    shown = [key for key in NAMED if shows_pattern or not key.startswith("sparsity.")]
    return {key: values.get(key) for key in changed if key not in shown}


@lru_cache(maxsize=64)
def _composed(choices: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    overrides = [f"{group}='{choice}'" for group, choice in choices]
    if GlobalHydra.instance().is_initialized():
        composed = compose("config", overrides)
    else:
        with initialize_config_module("statprune.conf", version_base="1.3"):
            composed = compose("config", overrides)
    result: Any = OmegaConf.to_container(composed, resolve=True)
    return result


def _numbers(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by full name that can change a number; 1.0 and 1 are the same."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not prefix and key in NOT_IN_HASH:
            continue
        if isinstance(value, dict) and value:
            result |= _numbers(value, f"{name}.")
        else:
            result[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return result
