"""What a table consists of: a YAML of rows, sections and columns becomes cells with the overrides of their runs."""

import csv
import difflib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from statprune.errors import ConfigError

TABLES = Path(__file__).parents[1] / "experiments" / "tables"
METRICS = ("perplexity", "zero_shot", "layer_seconds")
KEYS = {
    *("title", "source", "metric", "decimals", "reference", "sections", "rows", "columns", "seeds", "scales"),
    *("published", "tolerance", "deviations", "axis"),
}
ROW_KEYS = {"overrides", "seeds", "once", "published"}
SCALE_KEYS = {"overrides", "models", "columns", "seconds"}

Place = tuple[str, str, str]  # section, row, column


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        place: section, row and column.
        seed: of the calibration; None where a column sets it.
        overrides: of the run.
        seconds: what it costs by the table's own estimate.
    """

    place: Place
    seed: int | None
    overrides: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Table:
    """A table's layout and its runs.

    Attributes:
        name: of its file.
        title: a line.
        source: which of the paper's tables it is.
        metric: perplexity, zero_shot (mean accuracy in percent) or layer_seconds.
        decimals: shown.
        scale: bundled or paper.
        sections, rows, columns: labels in order; one section without a name where there are none.
        reference: the row, or the column, that others are compared with; the other is None, or both are.
        cells: every run.
        published: values by place; what is not published is not there.
        tolerance: relative difference to a published value that is not remarkable; None: not said.
        deviations: known ones, a sentence each.
        axis: what the columns are, for the figure.
    """

    name: str
    title: str
    source: str
    metric: str
    decimals: int
    scale: str
    sections: list[str]
    rows: list[str]
    columns: list[str]
    reference: tuple[str | None, str | None]
    cells: list[Cell]
    published: dict[Place, float] = field(default_factory=dict)
    tolerance: float | None = None
    deviations: list[str] = field(default_factory=list)
    axis: str = ""

    @property
    def planned(self) -> Counter[Place]:
        """How many runs each place is to have."""
        return Counter(cell.place for cell in self.cells)


def place_name(place: Place) -> str:
    """A place as a person reads it."""
    return " / ".join(part for part in place if part)


def table_names() -> list[str]:
    """Names of the tables that come with the project."""
    return sorted(path.stem for path in TABLES.glob("*.yaml") if path.stem != "scales")


def load_table(name: str, scale: str, models: list[str] | None = None, overrides: list[str] | None = None) -> Table:
    """Read a table's file.

    Args:
        name: of a table of the project, or the path of a YAML.
        scale: bundled or paper.
        models: labels of the scale's models; None: those of the table.
        overrides: for all cells, after all others.

    Raises:
        ConfigError: a sentence for everything that is wrong.
    """
    path = _path(name)
    described = _read(path)
    scales = _read(TABLES / "scales.yaml")
    if scale not in scales:
        raise ConfigError([f"scale={scale} is unknown; choose one of {', '.join(scales)}"])
    here = (described.get("scales") or {}).get(scale) or {}
    problems = [f"{path} has the key {key}, which is unknown" for key in described if key not in KEYS]
    problems += [f"{path} has no {key}" for key in ("title", "metric", "rows") if key not in described]
    problems += [f"{path} has the key scales.{scale}.{key}, which is unknown" for key in here if key not in SCALE_KEYS]
    for axis in ("sections", "rows", "columns"):
        for label in {**(described.get(axis) or {}), **((here.get(axis) or {}) if axis == "columns" else {})}:
            if not isinstance(label, str):
                problems.append(f"{path} has {label!r} in {axis}, which YAML reads as no text; put it in quotes")
    rows = {label: _row(row) for label, row in (described.get("rows") or {}).items()}
    for label, row in rows.items():
        problems += [f"{path} has the key {key} in row {label!r}, which is unknown" for key in row.keys() - ROW_KEYS]
    if described.get("metric", METRICS[0]) not in METRICS:
        problems.append(f"{path} has metric {described['metric']!r}; choose one of {', '.join(METRICS)}")
    wanted = models or here.get("models") or list(scales[scale]["models"])
    for label in wanted:
        if label not in scales[scale]["models"]:
            problems.append(f"{label!r} is no model of scale {scale}; choose from {', '.join(scales[scale]['models'])}")
    if problems:
        raise ConfigError(problems)
    chosen = {label: scales[scale]["models"][label] for label in wanted}
    common = [*scales[scale]["overrides"], *(here.get("overrides") or [])]
    return _Layout(path, described, scale, here, rows, chosen, common, overrides or []).table()


@dataclass(frozen=True)
class _Layout:
    """A table's file together with the scale's models."""

    path: Path
    described: dict[str, Any]
    scale: str
    here: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    common: list[str]
    last: list[str]

    def table(self) -> Table:
        columns = self.here.get("columns") or self.described.get("columns")
        sections = self.described.get("sections") or {}
        models = {label: model["overrides"] for label, model in self.models.items()}
        if columns is None:
            columns, model_of = models, 2
        elif sections and len(models) > 1:
            raise ConfigError([f"{self.path} has sections and columns, so that only one model has room; choose it"])
        elif sections:
            (of_model,) = models.values()
            columns, model_of = {label: [*of_model, *of_column] for label, of_column in columns.items()}, None
        else:  # several models are sections of their own
            sections, model_of = models, 0
        sections = sections or {"": []}
        cells, published = [], {}
        numbers = _published(self.described.get("published"))
        for section, of_section in sections.items():
            for column, of_column in columns.items():
                for label, row in self.rows.items():
                    place = (str(section), str(label), str(column))
                    # the dense model has no pattern: one run stands in every section
                    of_place = [*([] if row.get("once") and model_of != 0 else of_section), *of_column]
                    model = next(iter(self.models.values())) if model_of is None else self.models[place[model_of]]
                    cells += self._cells(place, row, of_place, model)
                    value = self._published_value(numbers, place, row, model)
                    if value is not None:
                        published[place] = value
        described, rows = self.described, [str(label) for label in self.rows]
        return Table(
            self.path.stem,
            described["title"],
            described.get("source", ""),
            described["metric"],
            described.get("decimals", 2),
            self.scale,
            [str(section) for section in sections],
            rows,
            [str(column) for column in columns],
            self._reference(rows, [str(column) for column in columns]),
            cells,
            published,
            described.get("tolerance"),
            described.get("deviations") or [],
            described.get("axis", ""),
        )

    def _cells(self, place: Place, row: dict[str, Any], of_place: list[str], model: dict[str, Any]) -> list[Cell]:
        every = self.described.get("seeds", [0])
        seeds = [None] if every is None else row.get("seeds") or (every[:1] if row.get("once") else every)
        seconds = float(self.here.get("seconds") or model["seconds"])
        overrides = [*self.common, *of_place, *row["overrides"]]
        return [
            Cell(place, seed, tuple(overrides + ([] if seed is None else [f"seed={seed}"]) + self.last), seconds)
            for seed in seeds
        ]

    def _reference(self, rows: list[str], columns: list[str]) -> tuple[str | None, str | None]:
        named = self.described.get("reference")
        row, column = (None, str(named["column"])) if isinstance(named, dict) else (named, None)
        for label, labels in ((row, rows), (column, columns)):
            if label is not None and label not in labels:
                raise ConfigError([f"{self.path} has reference {label!r}, which is none of {', '.join(labels)}"])
        return row, column

    def _published_value(
        self, numbers: list[dict[str, str]], place: Place, row: dict[str, Any], model: dict[str, Any]
    ) -> float | None:
        """The one published value of a place; None where the paper has none."""
        axis = (self.described.get("published") or {}).get("sparsity")
        sparsity = {"section": place[0], "column": place[2]}.get(str(axis))
        if row.get("once"):
            sparsity = "0"
        wanted = {"model": model.get("published"), "method": row.get("published")}
        wanted |= {} if sparsity is None else {"sparsity": sparsity}
        found = [number for number in numbers if all(number[key] == value for key, value in wanted.items())]
        if len(found) > 1:
            raise ConfigError([f"{self.path} finds {len(found)} published values for {place}; say which sparsity"])
        return float(found[0]["value"]) if found else None


def _path(name: str) -> Path:
    own = TABLES / f"{name}.yaml"
    if name in table_names():
        return own
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, table_names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(table_names())}, or name a YAML file"
    raise ConfigError([f"table={name} is unknown; {hint}"])


def _read(path: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([f"the table {path} can't be read ({' '.join(str(error).split())}); mend it"]) from error
    if not isinstance(described, dict):
        raise ConfigError([f"the table {path} holds no keys; see experiments/README.md"])
    return described


def _row(row: Any) -> dict[str, Any]:
    return {"overrides": row} if isinstance(row, list) else {"overrides": [], **(row or {})}


def _published(described: dict[str, Any] | None) -> list[dict[str, str]]:
    """Rows of the published numbers that belong to a table."""
    if not described:
        return []
    with (TABLES / "published.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["table"] == str(described["table"])]
