"""Tables from run records: mean and deviation over seeds, paired intervals, distance from published values; as text."""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statprune.analysis.collect import MACHINE, PACKAGES, documents, windows
from statprune.analysis.spec import Place, Table, place_name
from statprune.analysis.uncertainty import Interval, mean_and_deviation, paired_bootstrap

from statprune.errors import StatpruneError, first_line

HIGHER_IS_BETTER = ("zero_shot",)
NOT_APART = "≈"
UNITS = {"perplexity": "log-perplexity (nats)", "zero_shot": "percentage points"}  # of differences
# what two cells of one table must have in common; the rest of a protocol may follow from the model
EVERYWHERE = (
    "seq_len",
    "limit",
    "num_fewshot",
    "chat_template",
    "shots",
    "tasks",
    *PACKAGES,
)
OF_A_MODEL = ("windows", "sha256", "begins_with_bos", "requests_sha256")  # and what those of one model must have
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
LATEX |= {character: rf"\{character}" for character in "%_&#${}"}
LATEX |= {"\x01": r"\textbf{", "\x02": r"\underline{", "\x03": "}"}
LATEX |= {"<": "$<$", ">": "$>$", "±": r"$\pm$", "≈": r"$\approx$", "−": "$-$", "σ": r"$\sigma$", "α": r"$\alpha$"}


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
    """

    mean: float
    deviation: float | None
    seeds: int
    interval: Interval | None
    published: float | None

    @property
    def delta(self) -> float | None:
        """Ours minus published."""
        return None if self.published is None else self.mean - self.published


@dataclass(frozen=True)
class Built:
    """A table with its numbers.

    Attributes:
        table: the layout.
        entries: by place; what was not run is not there.
        runs: a line on what all cells share.
    """

    table: Table
    entries: dict[Place, Entry]
    runs: str


def build(table: Table, hashes: dict[Any, str], frame: pd.DataFrame) -> Built:
    """Fill a table from records.

    Args:
        table: the layout.
        hashes: the configuration's hash of each cell.
        frame: as ``collect`` gives it.

    Raises:
        StatpruneError: cells were not measured alike, naming them.
    """
    chosen = _chosen(table.metric, frame)
    runs: dict[Place, list[pd.Series]] = {}
    for cell in table.cells:
        if hashes[cell] in chosen.index:
            runs.setdefault(cell.place, []).append(chosen.loc[hashes[cell]])
    _check_alike(table, runs)
    entries = {}
    for place, rows in runs.items():
        mean, deviation = mean_and_deviation([float(row["value"]) for row in rows])
        interval = _interval(table, place, runs)
        entries[place] = Entry(mean, deviation, len(rows), interval, table.published.get(place))
    return Built(table, entries, _told(table, runs))


def _chosen(metric: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows a metric is read from, by configuration, with its ``value``."""
    if frame.empty:
        return frame
    if metric == "zero_shot":
        rows = frame[frame["on"] == "mean"] if "on" in frame else frame.iloc[:0]
        value = 100 * pd.to_numeric(rows["pruned"])
    elif metric == "perplexity":
        rows = frame[frame["metric"] == "perplexity"].drop_duplicates("folder")
        value = pd.to_numeric(rows["pruned"])  # None where it was not finite
    else:
        rows = frame[frame["layers"] > 0].drop_duplicates("folder")
        value = rows.reindex(columns=["seconds.observe", "seconds.solve"]).sum(axis=1, skipna=False) / rows["layers"]
    return rows.assign(value=value).drop_duplicates("config_hash").set_index("config_hash")


def _check_alike(table: Table, runs: dict[Place, list[pd.Series]]) -> None:
    """Cells of one table share versions, lengths and limits; those of one model share windows and documents, too."""
    every = [(place, row) for place, rows in runs.items() for row in rows]
    shared: tuple[str, ...] = EVERYWHERE
    of_a_model: tuple[str, ...] = OF_A_MODEL
    if table.metric == "layer_seconds":
        shared, of_a_model = PACKAGES, ()
        for key in (*MACHINE, "reused_statistics"):
            _same(key.replace("_", " "), every, lambda row, key=key: row[key], table)  # type: ignore[misc]
    for key in shared:
        _same(key, every, lambda row, key=key: row["protocol"].get(key), table)  # type: ignore[misc]
    for model in {row["model.path"] for _, row in every}:
        own = [(place, row) for place, row in every if row["model.path"] == model]
        for key in of_a_model:
            _same(key, own, lambda row, key=key: row["protocol"].get(key), table)  # type: ignore[misc]


def _same(key: str, runs: list[tuple[Place, pd.Series]], value: Callable[[pd.Series], Any], table: Table) -> None:
    found: dict[Any, list[str]] = {}
    for place, row in runs:
        found.setdefault(value(row), []).append(f"{place_name(place)} ({row['folder']})")
    if len(found) > 1:
        few = "; ".join(f"{which} in {', '.join(names[:3])}" for which, names in found.items())
        raise StatpruneError(
            f"the table {table.name} can't be built from cells with different {key}: {few}; "
            "delete those that are not meant, and run them again"
        )


def _interval(table: Table, place: Place, runs: dict[Place, list[pd.Series]]) -> Interval | None:
    """Paired with the reference of the same section (and column, or row), seed by seed."""
    row, column = table.reference
    other = (place[0], row if row is not None else place[1], column if column is not None else place[2])
    if table.metric == "layer_seconds" or (row is None and column is None) or other == place or other not in runs:
        return None
    mine, theirs = ({run["seed"]: run for run in runs[which]} for which in (place, other))
    planned = table.planned
    if planned[place] == 1 or planned[other] == 1:  # magnitude has no seeds: it is held against all of them
        pairs = [(one, two) for one in mine.values() for two in theirs.values()]
    else:
        pairs = [(mine[seed], theirs[seed]) for seed in mine.keys() & theirs.keys()]
    if not pairs:
        return None
    first, second = (_averaged([_units(table.metric, pair[which]) for pair in pairs]) for which in (1, 0))
    finite = all(len(units) and np.isfinite(units).all() for units in first + second)
    return paired_bootstrap(first, second) if finite else None


def _units(metric: str, run: pd.Series) -> list[np.ndarray]:
    """What is resampled: the windows' losses, or the answers to each task that the mean is of.

    A group's answers are nowhere alone: its array is empty.
    """
    folder = Path(run["folder"])
    try:
        if metric == "perplexity":
            table = windows(folder)
            return [table[table["dataset"] == run["on"]]["pruned_loss"].to_numpy()]
        table = documents(folder).sort_values("document")
    except OSError as error:
        raise StatpruneError(f"{folder} has a record, but {first_line(error)}; delete it, and run it again") from error
    chosen = [table[(table["task"] == task) & (table["metric"] == name)] for task, name in run["averaged"].items()]
    return [100 * answers["pruned"].to_numpy(dtype=float) for answers in chosen]


def _averaged(runs: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.mean(groups, axis=0) for groups in zip(*runs, strict=True)]


def _told(table: Table, runs: dict[Place, list[pd.Series]]) -> str:
    every = [row for rows in runs.values() for row in rows]
    if not every:
        return "Nothing was run yet."
    row, devices = every[0], sorted({str(row["device"]) for row in every})
    calibrated = f"calibration on {row['calibration.source']}"
    if table.metric == "perplexity":
        protocol = row["protocol"]
        counts = " or ".join(str(count) for count in sorted({row["n"] for row in every}))
        measured = f"perplexity on {row['on']}, {counts} windows of {protocol['seq_len']} tokens"
    elif table.metric == "zero_shot":
        limit = row["protocol"]["limit"]
        measured = f"mean accuracy in percent over {', '.join(row['evaluation.tasks'])}"
        measured += f", only the first {limit} documents of each task" if limit else ""
    else:
        measured = "seconds of observing and solving, the mean over all layers"
    return f"{table.scale} scale; {measured}; {calibrated}; {len(every)} runs on {', '.join(devices)}."


def ranks(built: Built, section: str, column: str) -> tuple[set[str], set[str]]:
    """Rows that are best and second in a column of a section, as they are shown; the dense row does not compete."""
    sign = -1 if built.table.metric in HIGHER_IS_BETTER else 1
    shown = {
        row: round(sign * built.entries[section, row, column].mean, built.table.decimals)
        for row in built.table.rows
        if (section, row, column) in built.entries and row.lower() != "dense"
        if math.isfinite(built.entries[section, row, column].mean)
    }
    values = sorted(set(shown.values()))
    places = [{row for row, value in shown.items() if value == wanted} for wanted in values[:2]]
    if len(shown) < 2:
        return set(), set()
    return places[0], places[1] if len(places) > 1 and len(places[0]) == 1 else set()


def to_markdown(built: Built) -> str:
    """A table for each section: best in bold, second underlined, ≈ where the interval holds zero."""
    table, lines = built.table, [f"## {built.table.title}", ""]
    for section, columns in _sections(built):
        heads = ["", *(head for column in columns for head in column.heads)]
        if section:
            lines += [f"**{section}**", ""]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for row in table.rows:
            cells = [cell for column in columns for cell in column.cells(row, "**{}**", "<u>{}</u>")]
            if any(cells):
                lines.append(_line([row, *cells]))
        lines.append("")
    return "\n".join([*lines, *_notes(built), ""])


def to_latex(built: Built) -> str:
    """One tabular with booktabs; a rule between sections."""
    table, body = built.table, []
    heads: list[str] = []
    for section, columns in _sections(built):
        heads = [head for column in columns for head in column.heads]
        if section:
            body += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_escaped(section)}}} \\"]
        body.append(r"\midrule")
        for row in table.rows:
            # marks that no label has, put in LaTeX's words once all else is escaped
            cells = [cell for column in columns for cell in column.cells(row, "\x01{}\x03", "\x02{}\x03")]
            if any(cells):
                body.append(" & ".join(_escaped(cell) for cell in [row, *cells]) + r" \\")
    first = [rf"% {note}" for note in _notes(built) if note]
    first += [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    first.append(" & ".join(["", *map(_escaped, heads)]) + r" \\")
    return "\n".join([*first, *body, r"\bottomrule", r"\end{tabular}", ""])


def to_csv(built: Built) -> str:
    """A row for each cell, with everything that is known of it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [
        "section",
        "row",
        "column",
        "mean",
        "deviation",
        "seeds",
        "difference",
        "low",
        "high",
        "difference_unit",
        "published",
        "delta",
    ]
    unit = UNITS.get(built.table.metric)
    writer.writerow(names)
    for place, entry in built.entries.items():
        interval = entry.interval
        ends = (interval.difference, interval.low, interval.high, unit) if interval is not None else (None,) * 4
        writer.writerow([*place, entry.mean, entry.deviation, entry.seeds, *ends, entry.published, entry.delta])
    return file.getvalue()


def write_tables(built: Built, folder: Path) -> list[Path]:
    """Markdown, LaTeX and CSV files of a table."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": to_markdown(built), "tex": to_latex(built), "csv": to_csv(built)}
    paths = [folder / f"{built.table.name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


@dataclass(frozen=True)
class _Column:
    """A column of a section, and the one of its distances from published values, where there are some."""

    built: Built
    section: str
    name: str

    @property
    def _is_published(self) -> bool:
        return any(place[2] == self.name and entry.published is not None for place, entry in self.built.entries.items())

    @property
    def heads(self) -> list[str]:
        return [self.name, "− published"] if self._is_published else [self.name]

    def cells(self, row: str, bold: str, underlined: str) -> list[str]:
        entry = self.built.entries.get((self.section, row, self.name))
        if entry is None:
            return [""] * len(self.heads)
        best, second = ranks(self.built, self.section, self.name)
        digits = self.built.table.decimals
        if not math.isfinite(entry.mean):
            return ["not finite", ""] if self._is_published else ["not finite"]
        text = f"{entry.mean:.{digits}f}"
        text = bold.format(text) if row in best else underlined.format(text) if row in second else text
        text += "" if entry.deviation is None else f" ± {entry.deviation:.{digits}f}"
        text += f" {NOT_APART}" if entry.interval is not None and not entry.interval.is_apart else ""
        return [text, self._distance(entry)] if self._is_published else [text]

    def _distance(self, entry: Entry) -> str:
        if entry.delta is None or entry.published is None:
            return ""
        tolerance = self.built.table.tolerance
        remarkable = tolerance is not None and abs(entry.delta) > tolerance * abs(entry.published)
        return f"{entry.delta:+.{self.built.table.decimals}f}" + (" !" if remarkable else "")


def _sections(built: Built) -> list[tuple[str, list[_Column]]]:
    table = built.table
    return [(section, [_Column(built, section, column) for column in table.columns]) for section in table.sections]


def _notes(built: Built) -> list[str]:
    """What a reader has to know, a sentence each."""
    table, entries = built.table, built.entries.values()
    notes = [f"{table.source[:1].upper()}{table.source[1:]}. {built.runs}" if table.source else built.runs]
    if any(entry.deviation is not None for entry in entries):
        notes.append("±: standard deviation over seeds.")
    if any(entry.interval is not None and not entry.interval.is_apart for entry in entries):
        units = "windows" if table.metric == "perplexity" else "documents"
        what = "log-perplexity" if table.metric == "perplexity" else "accuracy"
        against = table.reference[0] if table.reference[0] is not None else f"column {table.reference[1]}"
        notes.append(
            f"{NOT_APART}: the 95% interval (paired bootstrap over {units}) of the difference in {what} to {against} "
            "holds 0."
        )
    if table.tolerance is not None and any(entry.published is not None for entry in entries):
        notes.append(f"!: more than {100 * table.tolerance:g}% from the published value.")
    planned = table.planned
    missing = len(planned.keys() - built.entries.keys())
    notes += [f"{missing} of {len(planned)} cells were not run yet."] if missing else []
    for place, entry in built.entries.items():
        if entry.seeds < planned[place]:
            notes.append(f"{place_name(place)}: {entry.seeds} of {planned[place]} seeds; the others were not run yet.")
    return notes + table.deviations


def _line(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
