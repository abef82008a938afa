"""Tables from run records: mean and deviation over seeds, paired intervals, distance from published values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from statprune.analysis.collect import MACHINE, PACKAGES, documents, windows
from statprune.analysis.measures import LAYER_SECONDS, MEASURES, of_documents, of_windows
from statprune.analysis.uncertainty import Interval, mean_and_deviation, paired_bootstrap
from statprune.config.table_spec import Cell, Place, Table, place_name
from statprune.errors import StatpruneError, first_line
from statprune.runs.wording import counted

# what two cells of one table must have in common; the rest of a protocol may follow from the model
SHARED_BY_ALL = (
    "seq_len",
    "limit",
    "num_fewshot",
    "chat_template",
    "shots",
    "tasks",
    "metrics",
    *PACKAGES,
)
SHARED_BY_MODEL = ("windows", "sha256", "windows_with_bos", "requests_with_bos", "requests_sha256")

# unless the table itself sets them model by model, as it does where published values have several protocols
SET_BY_MODEL = {"seq_len": "evaluation.seq_len", "tasks": "evaluation.tasks", "metrics": "evaluation.tasks"}

Runs = Mapping[Place, Sequence["pd.Series"]]  # rows of ``collect`` by place


@dataclass(frozen=True)
class Made:
    """When a cell's runs were made, from which code and where; each with all that its seeds differ in.

    Attributes:
        date: in UTC.
        commit: first seven digits; empty for an installed wheel.
        device: as the record names it.
        threads: of PyTorch.
    """

    date: str
    commit: str
    device: str
    threads: str

    @classmethod
    def by(cls, rows: Sequence[pd.Series]) -> "Made":
        """What rows of ``collect`` say."""
        told = ([row[key] for row in rows if not pd.isna(row[key])] for key in ("commit", "device"))
        dates = [str(row["date"])[:10] for row in rows]
        threads = [int(row["threads"]) for row in rows if not pd.isna(row["threads"])]  # older records don't tell
        return cls(*(", ".join(map(str, sorted(set(values)))) for values in (dates, *told, threads)))


@dataclass(frozen=True)
class Entry:
    """One cell of a built table.

    Attributes:
        mean: over seeds, in the table's unit; NaN where one of them is not finite.
        deviation: sample standard deviation over seeds; None for one seed.
        seeds: how many.
        interval: of the difference to the reference cell, over windows (of log-perplexities) or documents (percentage
            points); None where there is none.
        published: the paper's value; None where there is none.
        made: what is known of its runs.
    """

    mean: float
    deviation: float | None
    seeds: int
    interval: Interval | None
    published: float | None
    made: Made | None = None

    @property
    def delta(self) -> float | None:
        """Ours minus published."""
        return None if self.published is None else self.mean - self.published


@dataclass(frozen=True)
class Built:
    """A table with its numbers.

    Attributes:
        table: the layout.
        entries: by place; places without a run are absent.
        runs: a line on what all cells share.
        measured: of it, what their values are of; empty where nothing was run.
        unmeasured: how many cells have a finished run that did not measure this.
    """

    table: Table
    entries: dict[Place, Entry]
    runs: str
    unmeasured: int = 0
    measured: str = ""


def build(table: Table, hashes: Mapping[Cell, str], frame: pd.DataFrame) -> Built:
    """Fill a table from records.

    Args:
        table: the layout.
        hashes: the configuration's hash of each cell.
        frame: as ``collect`` gives it.

    Raises:
        StatpruneError: cells were not measured alike, naming them.
    """
    measured = _measured(table.metric, frame)
    runs: dict[Place, list[pd.Series]] = {}
    for cell in table.cells:
        if hashes[cell] in measured.index:
            runs.setdefault(cell.place, []).append(measured.loc[hashes[cell]])
    _check_alike(table, runs)
    entries = {}
    for place, rows in runs.items():
        mean, deviation = mean_and_deviation([float(row["value"]) for row in rows])
        interval = _interval(table, place, runs)
        entries[place] = Entry(mean, deviation, len(rows), interval, table.published.get(place), Made.by(rows))
    finished = set(frame["config_hash"]) - set(measured.index) if not frame.empty else set()
    unmeasured = sum(hashes[cell] in finished for cell in table.cells)
    described = _described(table.metric, runs) if runs else ""
    return Built(table, entries, _description(table, runs, described), unmeasured, described)


def units(metric: str, run: pd.Series) -> list[np.ndarray]:
    """What is resampled: the windows' losses, or the answers to each task that the mean is of.

    A group's answers are nowhere alone: its array is empty.

    Args:
        metric: of the table, but for layer_seconds.
        run: a row of ``collect``.

    Raises:
        StatpruneError: the run's finer files are not there.
    """
    folder = Path(run["folder"])
    try:
        if MEASURES[metric].resampled == "windows":
            table = windows(folder)
            return [of_windows(metric, table[table["dataset"] == run["on"]])]
        table = documents(folder).sort_values("document")
    except OSError as error:
        raise StatpruneError(f"{folder} has a record, but {first_line(error)}; delete it, and run it again") from error
    answers = [table[(table["task"] == task) & (table["metric"] == name)] for task, name in run["averaged"].items()]
    return [of_documents(metric, own) for own in answers]


def _measured(metric: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows a metric is read from, by configuration, with its ``value``."""
    if frame.empty:
        return frame
    if metric == LAYER_SECONDS:
        rows = frame[frame["layers"] > 0].drop_duplicates("folder")
        value = rows.reindex(columns=["seconds.observe", "seconds.solve"]).sum(axis=1, skipna=False) / rows["layers"]
        rows = rows.assign(value=value)
    else:
        rows = MEASURES[metric].values(frame)
    return rows.drop_duplicates("config_hash").set_index("config_hash")


def _check_alike(table: Table, runs: Runs) -> None:
    """Cells of one table share versions, lengths and limits; those of one model share windows and documents, too."""
    rows = [(place, row) for place, own in runs.items() for row in own]
    of_models = [key for key, name in SET_BY_MODEL.items() if len(_planned(table, name)) > 1]
    by_all: tuple[str, ...] = tuple(key for key in SHARED_BY_ALL if key not in of_models)
    by_model: tuple[str, ...] = (*SHARED_BY_MODEL, *of_models)
    if table.metric == LAYER_SECONDS:
        by_all, by_model = PACKAGES, ()
        for key in (*MACHINE, "reused_statistics"):
            _check_same(table, key.replace("_", " "), [(place, row, row[key]) for place, row in rows])
    for key in by_all:
        _check_same(table, key, [(place, row, row["protocol"].get(key)) for place, row in rows])
    for model in {row["model.path"] for _, row in rows}:
        own_rows = [(place, row) for place, row in rows if row["model.path"] == model]
        for key in by_model:
            values = [(place, row, row["protocol"].get(key)) for place, row in own_rows]
            if key.endswith("_with_bos"):  # older records do not always tell
                values = [known for known in values if known[2] is not None]
            _check_same(table, key, values)


def _planned(table: Table, key: str) -> dict[str | None, list[str]]:
    """What the table's layout sets a key to, with the columns of the cells that it sets so; None: nothing."""
    columns: dict[str | None, list[str]] = {}
    for cell in table.cells:
        values = [override.partition("=")[2] for override in cell.overrides if override.startswith(f"{key}=")]
        own = columns.setdefault(values[-1] if values else None, [])
        own += [] if cell.place[2] in own else [cell.place[2]]
    return columns


def _check_same(table: Table, key: str, values: Sequence[tuple[Place, pd.Series, object]]) -> None:
    """Raise StatpruneError where runs have different values, naming them."""
    places: dict[object, list[str]] = {}
    for place, row, value in values:
        places.setdefault(value, []).append(f"{place_name(place)} ({row['folder']})")
    if len(places) > 1:
        examples = "; ".join(f"{value} in {', '.join(names[:3])}" for value, names in places.items())
        raise StatpruneError(
            f"the table {table.name} can't be built from cells with different {key}: {examples}; "
            "delete those that are not meant, and run them again"
        )


def _interval(table: Table, place: Place, runs: Runs) -> Interval | None:
    """Paired with the reference of the same section (and column, or row), seed by seed."""
    row, column = table.reference.row, table.reference.column
    other = (place[0], row if row is not None else place[1], column if column is not None else place[2])
    has_reference = row is not None or column is not None
    if table.metric == LAYER_SECONDS or not has_reference or other == place or other not in runs:
        return None
    own, reference = ({run["seed"]: run for run in runs[which]} for which in (place, other))
    planned = table.planned
    if planned[place] == 1 or planned[other] == 1:  # magnitude has no seeds: it is compared with all of them
        pairs = [(one, two) for one in own.values() for two in reference.values()]
    else:
        pairs = [(own[seed], reference[seed]) for seed in own.keys() & reference.keys()]
    if not pairs:
        return None
    first, second = (_averaged([units(table.metric, pair[which]) for pair in pairs]) for which in (1, 0))
    is_finite = all(len(group) and np.isfinite(group).all() for group in first + second)
    return paired_bootstrap(first, second) if is_finite else None


def _averaged(runs: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.mean(groups, axis=0) for groups in zip(*runs, strict=True)]


def _description(table: Table, runs: Runs, described: str) -> str:
    """A line on what all cells share."""
    rows = [row for own in runs.values() for row in own]
    if not rows:
        return "Nothing was run yet."
    devices = sorted({str(row["device"]) for row in rows})
    calibrated = f"calibration on {rows[0]['calibration.source']}"
    return f"{table.scale} scale; {described}; {calibrated}; {counted(len(rows), 'run')} on {', '.join(devices)}."


def _described(metric: str, runs: Runs) -> str:
    """What was measured, and on what."""
    rows = [row for own in runs.values() for row in own]
    if metric == LAYER_SECONDS:
        return "seconds of observing and solving, the mean over all layers"
    if MEASURES[metric].resampled == "windows":
        counts = " or ".join(str(count) for count in sorted({row["n"] for row in rows}))
        told = MEASURES[metric].described.format(on=rows[0]["on"])
        return f"{told}, {counts} windows of {_each(runs, _tokens)} tokens"
    limit = rows[0]["protocol"]["limit"]
    told = MEASURES[metric].described.format(on=_each(runs, _tasks))
    return told + (f", only the first {limit} documents of each task" if limit else "")


def _tokens(row: pd.Series) -> str:
    return str(row["protocol"]["seq_len"])


def _tasks(row: pd.Series) -> str:
    return ", ".join(row["evaluation.tasks"])


def _each(runs: Runs, told: Callable[[pd.Series], str]) -> str:
    """What is told of all runs; where it is not the same of all, with the columns that it is true of."""
    columns: dict[str, list[str]] = {}
    for place, rows in runs.items():
        for row in rows:
            own = columns.setdefault(told(row), [])
            own += [] if place[2] in own else [place[2]]
    if len(columns) == 1:
        return next(iter(columns))
    return " or ".join(f"{value} ({', '.join(labels)})" for value, labels in columns.items())
