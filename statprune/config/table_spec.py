"""What a table consists of: a YAML of rows, sections and columns becomes cells with the overrides of their runs."""

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from statprune.config.provenance import Provenance, provenance_of
from statprune.config.table_files import (
    METRICS,
    TABLES,
    ScaleModel,
    TableRow,
    models_run,
    published_rows,
    read_rows,
    read_yaml,
    table_path,
    table_problems,
)
from statprune.errors import ConfigError

DECIMALS = dict.fromkeys(METRICS, 2) | {"kl": 4, "top1": 1, "zero_shot": 1, "flips": 1}
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
class Reference:
    """What the cells of a table are compared with: at most one of both.

    Attributes:
        row: of the same section and column.
        column: of the same section and row.
    """

    row: str | None = None
    column: str | None = None


@dataclass(frozen=True)
class Table:
    """A table's layout and its runs.

    Attributes:
        name: of its file.
        title: a line.
        source: which of the paper's tables it is.
        metric: perplexity, perplexity_quantized (of the model quantised, where the runs have ``quantize``), kl
            (divergence from the dense model, nats per token), top1 (agreement with it in percent), zero_shot (mean
            accuracy in percent), flips (changed answers in percent) or layer_seconds (of observing, solving).
        decimals: shown.
        scale: bundled or paper.
        sections: labels in order; one without a name where there are none.
        rows: labels in order.
        columns: labels in order.
        reference: what cells are compared with.
        cells: every run.
        published: values by place; places without a published value are absent.
        provenance: where the digits of each of them stand.
        tolerance: relative difference to a published value that is not remarkable; None: not said.
        deviations: known deviations from the publication, a sentence each.
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
    reference: Reference
    cells: list[Cell]
    published: dict[Place, float] = field(default_factory=dict)
    provenance: dict[Place, Provenance] = field(default_factory=dict)
    tolerance: float | None = None
    deviations: list[str] = field(default_factory=list)
    axis: str = ""

    @property
    def planned(self) -> Counter[Place]:
        """How many runs each place is to have."""
        return Counter(cell.place for cell in self.cells)

    def measured_by(self, metric: str) -> "Table":
        """The table of the same runs with another number of theirs, without published values, under a name of its own.

        Raises:
            ConfigError: there is no such metric.
        """
        if metric not in METRICS:
            raise ConfigError([f"--metric {metric} is unknown; choose one of {', '.join(METRICS)}"])
        if metric == self.metric:
            return self
        decimals = DECIMALS.get(metric, self.decimals)
        name, title = f"{self.name}_{metric}", f"{self.title} ({metric} of the same runs)"
        return replace(
            self, name=name, title=title, metric=metric, decimals=decimals, published={}, tolerance=None, deviations=[]
        )

    def only(
        self,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> "Table":
        """The table with these rows, columns and seeds alone.

        Args:
            rows: labels; None: all.
            columns: labels, of sections too where the table has them (50%, 2:4); None: all.
            seeds: of the cells that have one; None: all.

        Raises:
            ConfigError: a label or seed that the table does not have.
        """
        own_seeds = sorted({cell.seed for cell in self.cells if cell.seed is not None})
        problems = _unknown(self.name, "row", rows, self.rows)
        sections = [label for label in self.sections if label]
        problems += _unknown(self.name, "column", columns, [*self.columns, *sections])
        problems += _unknown(self.name, "seed", seeds, own_seeds)
        if problems:
            raise ConfigError(problems)
        rows = _chosen(self.rows, rows)
        sections, columns = _chosen(self.sections, columns), _chosen(self.columns, columns)
        places = set(itertools.product(sections, rows, columns))
        cells = [
            cell
            for cell in self.cells
            if cell.place in places and (seeds is None or cell.seed is None or cell.seed in seeds)
        ]
        if not cells:
            raise ConfigError([f"the table {self.name} has no cell with these rows, columns and seeds; name fewer"])
        return replace(
            self,
            sections=sections,
            rows=rows,
            columns=columns,
            cells=cells,
            published={place: value for place, value in self.published.items() if place in places},
            provenance={place: value for place, value in self.provenance.items() if place in places},
        )


def place_name(place: Place) -> str:
    """A place as a person reads it."""
    return " / ".join(label for label in place if label)


def load_table(
    name: str, scale: str, models: Sequence[str] | None = None, overrides: Sequence[str] | None = None
) -> Table:
    """Read a table's file.

    Args:
        name: of a table of the project, or the path of a YAML.
        scale: bundled or paper.
        models: labels of the scale's models; None: those of the table.
        overrides: for all cells, after all others.

    Raises:
        ConfigError: a sentence for everything that is wrong.
    """
    path = table_path(name)
    table = read_yaml(path)
    scales = read_yaml(TABLES / "scales.yaml")
    if scale not in scales:
        raise ConfigError([f"there is no scale {scale}; choose one of {', '.join(scales)}"])
    of_scale = (table.get("scales") or {}).get(scale) or {}
    problems = table_problems(path, table, scale, of_scale)
    models_of_scale = scales[scale]["models"]
    wanted = models or of_scale.get("models") or list(models_of_scale)
    for label in wanted:
        if label not in models_of_scale:
            problems.append(f"{label!r} is no model of scale {scale}; choose from {', '.join(models_of_scale)}")
    of_models = of_scale.get("of_models") or {}
    for label in of_models:
        if label not in models_of_scale:
            problems.append(f"{path} has {label!r} in scales.{scale}.of_models, which is no model of that scale")
    if problems:
        raise ConfigError(problems)
    chosen = {label: _model_for(ScaleModel(**models_of_scale[label]), of_models.get(label, [])) for label in wanted}
    return _Layout(
        path=path,
        table=table,
        scale=scale,
        of_scale=of_scale,
        rows=read_rows(table),
        models=models_run(path.stem, chosen, overrides or []),
        common=[*scales[scale]["overrides"], *(of_scale.get("overrides") or [])],
        last=list(overrides or []),
    ).spec()


@dataclass(frozen=True)
class _Axes:
    """Sections and columns with their overrides; ``model_of`` is the index of a place that names its model."""

    sections: Mapping[str, list[str]]
    columns: Mapping[str, list[str]]
    model_of: int | None


@dataclass(frozen=True)
class _Layout:
    """A table's file together with the scale's models."""

    path: Path
    table: Mapping[str, Any]
    scale: str
    of_scale: Mapping[str, Any]
    rows: Mapping[str, TableRow]
    models: Mapping[str, ScaleModel]
    common: list[str]
    last: list[str]

    def spec(self) -> Table:
        axes, table = self._axes(), self.table
        rows, columns = [str(label) for label in self.rows], [str(label) for label in axes.columns]
        cells: list[Cell] = []
        published: dict[Place, dict[str, str]] = {}
        values = published_rows(table.get("published"))
        for section, of_section in axes.sections.items():
            for column, of_column in axes.columns.items():
                for label, row in self.rows.items():
                    place = (str(section), str(label), str(column))
                    # the dense model has no pattern: one run stands in every section
                    is_once = row.once and axes.model_of != 0
                    of_place = [*([] if is_once else of_section), *of_column]
                    model = self._model(place, axes.model_of)
                    cells += self._cells(place, row, of_place, model)
                    value = self._published_row(values, place, row, model)
                    if value is not None:
                        published[place] = value
        return Table(
            name=self.path.stem,
            title=table["title"],
            source=table.get("source", ""),
            metric=table["metric"],
            decimals=table.get("decimals", 2),
            scale=self.scale,
            sections=[str(section) for section in axes.sections],
            rows=rows,
            columns=columns,
            reference=self._reference(rows, columns),
            cells=cells,
            published={place: float(value["value"]) for place, value in published.items()},
            provenance={place: provenance_of(value) for place, value in published.items()},
            tolerance=table.get("tolerance"),
            deviations=[*(table.get("deviations") or []), *self._changed()],
            axis=table.get("axis", ""),
        )

    def _changed(self) -> list[str]:
        """A sentence about overrides of all cells: a label may say otherwise, such as that of the model."""
        return [f"All cells were run with {', '.join(self.last)}."] if self.last else []

    def _axes(self) -> _Axes:
        columns = self.of_scale.get("columns") or self.table.get("columns")
        sections = self.table.get("sections") or {}
        models = {label: model.overrides for label, model in self.models.items()}
        if columns is None:
            return _Axes(sections or {"": []}, models, model_of=2)
        if not sections:  # several models are sections of their own
            return _Axes(models, columns, model_of=0)
        if len(models) > 1:
            raise ConfigError([f"{self.path} has sections and columns, so that only one model has room; choose it"])
        (of_model,) = models.values()
        columns = {label: [*of_model, *of_column] for label, of_column in columns.items()}
        return _Axes(sections, columns, model_of=None)

    def _model(self, place: Place, model_of: int | None) -> ScaleModel:
        return next(iter(self.models.values())) if model_of is None else self.models[place[model_of]]

    def _cells(self, place: Place, row: TableRow, of_place: list[str], model: ScaleModel) -> list[Cell]:
        every = self.table.get("seeds", [0])
        seeds = [None] if every is None else row.seeds or (every[:1] if row.once else every)
        seconds = float(self.of_scale.get("seconds") or model.seconds)
        overrides = [*self.common, *of_place, *row.overrides]
        return [
            Cell(place, seed, tuple(overrides + ([] if seed is None else [f"seed={seed}"]) + self.last), seconds)
            for seed in seeds
        ]

    def _reference(self, rows: list[str], columns: list[str]) -> Reference:
        named = self.table.get("reference")
        reference = Reference(column=str(named["column"])) if isinstance(named, dict) else Reference(row=named)
        for label, labels in ((reference.row, rows), (reference.column, columns)):
            if label is not None and label not in labels:
                raise ConfigError([f"{self.path} has reference {label!r}, which is none of {', '.join(labels)}"])
        return reference

    def _published_row(
        self, values: list[dict[str, str]], place: Place, row: TableRow, model: ScaleModel
    ) -> dict[str, str] | None:
        """The one published value of a place with all that is said of it; None where the paper has none."""
        axis = (self.table.get("published") or {}).get("sparsity")
        sparsity = {"section": place[0], "column": place[2]}.get(str(axis))
        if row.once:
            sparsity = "0"
        wanted = {"model": model.published, "method": row.published}
        wanted |= {} if sparsity is None else {"sparsity": sparsity}
        matching = [value for value in values if all(value[key] == wish for key, wish in wanted.items())]
        if len(matching) > 1:
            raise ConfigError([f"{self.path} finds {len(matching)} published values for {place}; say which sparsity"])
        return matching[0] if matching else None


def _model_for(model: ScaleModel, overrides: list[str]) -> ScaleModel:
    """The model with what a table sets for it alone."""
    return replace(model, overrides=[*model.overrides, *overrides])


def _chosen(labels: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The wanted ones of an axis' labels; all of them where none of them is named."""
    return [label for label in labels if label in (wanted or ())] or list(labels)


def _unknown(table: str, what: str, wanted: Iterable[object] | None, labels: Sequence[object]) -> list[str]:
    """A sentence for each wanted label or seed that is not there."""
    problems = []
    for label in wanted or ():
        if label in labels:
            continue
        near = difflib.get_close_matches(str(label), [str(other) for other in labels], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(str, labels))}"
        problems.append(f"the table {table} has no {what} {label!r}; {hint}")
    return problems
