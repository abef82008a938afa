"""The files that describe tables: where they are, how they are read, and what is wrong with one."""

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from statprune.config.swept import key_and_value
from statprune.errors import ConfigError
from statprune.model.location import model_name

TABLES = Path(str(files("statprune.experiments"))) / "tables"
NO_TABLES = ("scales", "sources")  # files beside them
METRICS = ("perplexity", "perplexity_quantized", "kl", "top1", "zero_shot", "flips", "layer_seconds")
KEYS = {
    *("title", "source", "metric", "decimals", "reference", "sections", "rows", "columns", "seeds", "scales"),
    *("published", "tolerance", "deviations", "axis"),
}
SCALE_KEYS = {"overrides", "models", "of_models", "columns", "seconds"}


@dataclass(frozen=True)
class TableRow:
    """A row of a table's file.

    Attributes:
        overrides: of its runs.
        seeds: of its own; None: the table's.
        once: one run with the first seed stands in every section (the dense model, which has no pattern).
        published: its method's name among the published values.
    """

    overrides: list[str] = field(default_factory=list)
    seeds: list[int] | None = None
    once: bool = False
    published: str | None = None


@dataclass(frozen=True)
class ScaleModel:
    """A model of a scale.

    Attributes:
        overrides: that choose it.
        seconds: estimate for one run with it.
        published: its name among the published values.
    """

    overrides: list[str]
    seconds: float
    published: str | None = None


def models_run(table: str, models: Mapping[str, ScaleModel], overrides: Sequence[str]) -> Mapping[str, ScaleModel]:
    """A table's models by label; the one that overrides choose for all cells stands under its own name.

    Raises:
        ConfigError: the overrides would make several models one.
    """
    chosen = [value for key, value in map(key_and_value, overrides) if key in ("model", "model.path")]
    if not chosen:
        return models
    if len(models) > 1:
        raise ConfigError(
            [
                f"the table {table} has {len(models)} models, and the overrides run all of them with {chosen[-1]}; "
                f"name one of {', '.join(models)} with --models"
            ]
        )
    return {model_name(chosen[-1]): model for model in models.values()}


def table_names() -> list[str]:
    """Names of the tables that come with the project."""
    return sorted(path.stem for path in TABLES.glob("*.yaml") if path.stem not in NO_TABLES)


def table_path(name: str) -> Path:
    """The file of a table of the project, or of one named by its path.

    Raises:
        ConfigError: there is none.
    """
    own = TABLES / f"{name}.yaml"
    if name in table_names():
        return own
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, table_names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(table_names())}, or name a YAML file"
    raise ConfigError([f"the table {name} is unknown; {hint}"])


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        ConfigError: it can't be read, or holds none.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([f"the table {path} can't be read ({' '.join(str(error).split())}); mend it"]) from error
    if not isinstance(content, dict):
        raise ConfigError([f"the table {path} holds no keys; see experiments/README.md"])
    return content


def read_rows(table: Mapping[str, Any]) -> dict[str, TableRow]:
    """A table's rows by label, once ``table_problems`` has found nothing wrong with them."""
    return {label: TableRow(**row) for label, row in _row_keys(table).items()}


def published_rows(described: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Rows of the published numbers that belong to a table."""
    if not described:
        return []
    with (TABLES / "published.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["table"] == str(described["table"])]


def table_problems(path: Path, table: Mapping[str, Any], scale: str, of_scale: Mapping[str, Any]) -> list[str]:
    """What is wrong with a table's keys, a sentence each."""
    problems = [f"{path} has the unknown key {key}" for key in table if key not in KEYS]
    problems += [f"{path} has no {key}" for key in ("title", "metric", "rows") if key not in table]
    problems += [f"{path} has the unknown key scales.{scale}.{key}" for key in of_scale if key not in SCALE_KEYS]
    for axis in ("sections", "rows", "columns"):
        for label in {**(table.get(axis) or {}), **((of_scale.get(axis) or {}) if axis == "columns" else {})}:
            if not isinstance(label, str):
                problems.append(f"{path} has {label!r} in {axis}, which YAML reads as no text; put it in quotes")
    names = {item.name for item in fields(TableRow)}
    for label, row in _row_keys(table).items():
        problems += [f"{path} has the unknown key {key} in row {label!r}" for key in row.keys() - names]
    if table.get("metric", METRICS[0]) not in METRICS:
        problems.append(f"{path} has metric {table['metric']!r}; choose one of {', '.join(METRICS)}")
    return problems


def _row_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    """A list stands for a row's overrides."""
    rows = table.get("rows") or {}
    return {label: {"overrides": row} if isinstance(row, list) else row or {} for label, row in rows.items()}
