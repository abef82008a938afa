"""Which jobs one command stands for: a preset's own grid, files that list cells, and how many there are."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.compose import compose, parse_overrides
from statprune.errors import ConfigError, StatpruneError, first_line

MOST_JOBS = 10_000  # of one command


def preset_grid(overrides: Sequence[str]) -> dict[str, str] | None:
    """The grid that the chosen experiment starts by itself, without the keys that are overridden.

    Args:
        overrides: of the command.

    Returns:
        The listed values by key; None where the experiment is a single run.
    """
    try:
        parsed = parse_overrides(overrides)
        hydra = compose([str(item.input_line) for item in parsed if not item.is_sweep_override()]).hydra
    except (HydraException, OmegaConfBaseException, StatpruneError, ValueError, TypeError):  # the last: of a list
        return None  # the overrides' problems are reported elsewhere
    if hydra.get("mode") != RunMode.MULTIRUN.name:
        return None
    overridden = {item.key_or_group for item in parsed}
    grid = OmegaConf.select(hydra, "sweeper.params")
    if not isinstance(grid, DictConfig):
        return {}
    return {str(key): str(values) for key, values in grid.items() if key not in overridden}


def swept_grids(overrides: Sequence[str]) -> list[str]:
    """A sentence where several presets are listed of which one is a grid: its jobs would be lost."""
    try:
        parsed = parse_overrides(overrides)
    except HydraException:
        return []  # reported elsewhere
    return [
        f"{item.input_line} lists presets that are grids themselves; start them one after the other, without -m"
        for item in parsed
        if item.key_or_group == "experiment" and item.is_discrete_sweep()
        if any(preset_grid([f"experiment={choice}"]) is not None for choice in item.sweep_string_iterator())
    ]


def grid_problems(overrides: Sequence[Override]) -> list[str]:
    """A sentence where a grid has no job, or more than ``MOST_JOBS``: each would have to be composed and checked.

    Args:
        overrides: of the command, without search spaces.
    """
    problems = []
    for item in overrides:
        if item.is_sweep_override():
            try:
                count = _count_values(item)
            except (HydraException, ValueError, ArithmeticError) as error:
                problems.append(f"{item.input_line} can't be listed ({first_line(error)}); list the values themselves")
                continue
            if count == 0:
                problems.append(f"{item.input_line} lists no value; give one at least")
    if problems:
        return problems
    count = math.prod(_count_values(item) for item in overrides if item.is_sweep_override())
    advice = "list fewer values, or start a part of them after the other"
    shown = str(count) if count < 10**12 else "more than 10**12"
    return [f"the command stands for {shown} runs, and {MOST_JOBS} are the most; {advice}"] if count > MOST_JOBS else []


def _count_values(swept: Override) -> int:
    """How many values a swept override lists, without listing those of a range."""
    value = swept.value()
    if not isinstance(value, RangeSweep):
        return len(list(swept.sweep_string_iterator()))
    if value.start is None or value.stop is None or not value.step:
        raise HydraException("a range has a start, a stop, and a step other than 0")
    return max(0, math.ceil((value.stop - value.start) / value.step))


def count_jobs(overrides: Sequence[str]) -> int | None:
    """How many jobs a sweep's command starts; None where only its sweeper knows.

    Args:
        overrides: of the command, checked, with the grid of its preset.
    """
    parsed = parse_overrides(overrides)
    plain = [item for item in parsed if not item.is_sweep_override()]
    values = {item.key_or_group: item.value() for item in plain}
    preset = compose([str(item.input_line) for item in plain]).hydra
    match values.get("hydra/sweeper", "basic"):
        case "basic":
            return _count_product(parsed, OmegaConf.select(preset, "sweeper.params") or {})
        case "cells":
            return len(read_cells(values.get("hydra.sweeper.file")))
        case "optuna":
            own = OmegaConf.load(str(files("statprune.conf") / "hydra" / "sweeper" / "optuna.yaml"))
            of_files = OmegaConf.select(preset, "sweeper.n_trials"), OmegaConf.select(own, "n_trials")
            trials = (values.get("hydra.sweeper.n_trials"), *of_files)
            return next((count for count in trials if isinstance(count, int)), None)
    return None


def _count_product(parsed: Sequence[Override], grid: Mapping[str, object]) -> int | None:
    """How many combinations there are of listed values, and those of a preset's grid that are not overridden."""
    keys = {item.key_or_group for item in parsed}
    if any(key.startswith("hydra.sweeper.params") for key in keys):
        return None
    others = parse_overrides([f"{key}={values}" for key, values in grid.items() if key not in keys])
    swept = [item for item in (*parsed, *others) if item.is_sweep_override()]
    return math.prod(len(list(item.sweep_string_iterator())) for item in swept)


def read_cells(file: object) -> list[list[str]]:
    """The jobs that a file of cells lists: for each, overrides that come after those of the command.

    Args:
        file: value of ``hydra.sweeper.file``.

    Raises:
        ConfigError: it is missing, can't be read, or is no list of lists.
    """
    what = "a JSON file with a list of lists of overrides"
    if file is None:
        raise ConfigError([f"hydra/sweeper=cells needs hydra.sweeper.file; name {what}"])
    try:
        cells = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"hydra.sweeper.file={file} can't be read ({error}); name {what}"]) from error
    if not (isinstance(cells, list) and cells and all(isinstance(cell, list) for cell in cells)):
        raise ConfigError(
            [f"hydra.sweeper.file={file} holds no list of lists of overrides; write one list for each job"]
        )
    return [[str(override) for override in cell] for cell in cells]
