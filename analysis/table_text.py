"""A built table as Markdown, LaTeX and CSV."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from statprune.analysis.measures import MEASURES, higher_is_better
from statprune.analysis.tables import Built, Entry
from statprune.config.table_spec import place_name
from statprune.runs.wording import counted

NOT_APART = "≈"
BOLD, UNDERLINED, END = "\x01", "\x02", "\x03"  # marks that no label has, replaced once all else is escaped
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
LATEX |= {character: rf"\{character}" for character in "%_&#${}"}
LATEX |= {BOLD: r"\textbf{", UNDERLINED: r"\underline{", END: "}"}
LATEX |= {"<": "$<$", ">": "$>$", "±": r"$\pm$", "≈": r"$\approx$", "−": "$-$", "σ": r"$\sigma$", "α": r"$\alpha$"}
CSV_COLUMNS = (
    *("section", "row", "column", "mean", "deviation", "seeds"),
    *("difference", "low", "high", "difference_unit", "published", "delta"),
)


@dataclass(frozen=True)
class Ranks:
    """Rows that are best and second in a column, as their values are shown."""

    best: set[str]
    second: set[str]


def ranks(built: Built, section: str, column: str) -> Ranks:
    """Rows that are best and second in a column of a section; the dense row does not compete."""
    sign = -1 if higher_is_better(built.table.metric) else 1
    shown = {
        row: round(sign * built.entries[section, row, column].mean, built.table.decimals)
        for row in built.table.rows
        if (section, row, column) in built.entries and row.lower() != "dense"
        if math.isfinite(built.entries[section, row, column].mean)
    }
    if len(shown) < 2:
        return Ranks(set(), set())
    values = sorted(set(shown.values()))
    best = {row for row, value in shown.items() if value == values[0]}
    if len(best) > 1:  # they share the first place: there is no second
        return Ranks(best, set())
    return Ranks(best, {row for row, value in shown.items() if value == values[1]})


def to_markdown(built: Built) -> str:
    """A table for each section: best in bold, second underlined, ≈ where the interval holds zero."""
    table, lines = built.table, [f"## {built.table.title}", ""]
    for section in table.sections:
        columns = _columns(built, section)
        heads = ["", *(head for column in columns for head in column.heads)]
        if section:
            lines += [f"**{section}**", ""]
        lines += [_markdown_line(heads), _markdown_line(["---"] * len(heads))]
        for row in table.rows:
            cells = [cell for column in columns for cell in column.cells(row, "**{}**", "<u>{}</u>")]
            if any(cells):
                lines.append(_markdown_line([row, *cells]))
        lines.append("")
    return "\n".join([*lines, *_notes(built), ""])


def to_latex(built: Built) -> str:
    """One tabular with booktabs; a rule between sections."""
    body: list[str] = []
    heads: list[str] = []
    for section in built.table.sections:
        columns = _columns(built, section)
        heads = [head for column in columns for head in column.heads]
        if section:
            body += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_escaped(section)}}} \\"]
        body.append(r"\midrule")
        for row in built.table.rows:
            bold, underlined = f"{BOLD}{{}}{END}", f"{UNDERLINED}{{}}{END}"
            cells = [cell for column in columns for cell in column.cells(row, bold, underlined)]
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
    writer.writerow(CSV_COLUMNS)
    unit = MEASURES[built.table.metric].unit if built.table.metric in MEASURES else None
    for place, entry in built.entries.items():
        interval = entry.interval
        ends = (interval.difference, interval.low, interval.high, unit) if interval is not None else (None,) * 4
        writer.writerow([*place, entry.mean, entry.deviation, entry.seeds, *ends, entry.published, entry.delta])
    return file.getvalue()


def write_tables(built: Built, folder: Path) -> list[Path]:
    """Write Markdown, LaTeX and CSV files of a table; returns their paths."""
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
    def _has_published(self) -> bool:
        entries = self.built.entries
        return any(place[2] == self.name and entry.published is not None for place, entry in entries.items())

    @property
    def heads(self) -> list[str]:
        return [self.name, "− published"] if self._has_published else [self.name]

    def cells(self, row: str, bold: str, underlined: str) -> list[str]:
        """The row's cells; ``bold`` and ``underlined`` are formats for the best and the second value."""
        entry = self.built.entries.get((self.section, row, self.name))
        if entry is None:
            return [""] * len(self.heads)
        if not math.isfinite(entry.mean):
            return ["not finite", ""] if self._has_published else ["not finite"]
        places, digits = ranks(self.built, self.section, self.name), self.built.table.decimals
        text = f"{entry.mean:.{digits}f}"
        text = bold.format(text) if row in places.best else underlined.format(text) if row in places.second else text
        text += "" if entry.deviation is None else f" ± {entry.deviation:.{digits}f}"
        text += f" {NOT_APART}" if entry.interval is not None and not entry.interval.is_apart else ""
        return [text, self._distance(entry)] if self._has_published else [text]

    def _distance(self, entry: Entry) -> str:
        if entry.delta is None or entry.published is None:
            return ""
        tolerance = self.built.table.tolerance
        is_remarkable = tolerance is not None and abs(entry.delta) > tolerance * abs(entry.published)
        return f"{entry.delta:+.{self.built.table.decimals}f}" + (" !" if is_remarkable else "")


def _columns(built: Built, section: str) -> list[_Column]:
    return [_Column(built, section, column) for column in built.table.columns]


def _notes(built: Built) -> list[str]:
    """What a reader has to know, a sentence each."""
    table, entries = built.table, built.entries.values()
    notes = [f"{table.source[:1].upper()}{table.source[1:]}. {built.runs}" if table.source else built.runs]
    if any(entry.deviation is not None for entry in entries):
        notes.append("±: standard deviation over seeds.")
    if any(entry.interval is not None and not entry.interval.is_apart for entry in entries):
        measure = MEASURES[table.metric]
        row, column = table.reference.row, table.reference.column
        against = row if row is not None else f"column {column}"
        notes.append(
            f"{NOT_APART}: the 95% interval (paired bootstrap over {measure.resampled}) of the difference in "
            f"{measure.difference} to {against} "
            "holds 0."
        )
    if table.tolerance is not None and any(entry.published is not None for entry in entries):
        notes.append(f"!: more than {100 * table.tolerance:g}% from the published value.")
    planned = table.planned
    missing = len(planned.keys() - built.entries.keys())
    notes += [f"{missing} of {len(planned)} cells were not run yet."] if missing and not built.unmeasured else []
    if built.unmeasured:
        notes.append(
            f"{missing} of {len(planned)} cells have no number; {counted(built.unmeasured, 'finished run')} did not "
            "measure it: a dense model's, or one that rerun=true runs again."
        )
    for place, entry in built.entries.items():
        if entry.seeds < planned[place]:
            notes.append(f"{place_name(place)}: {entry.seeds} of {planned[place]} seeds; the others were not run yet.")
    return notes + table.deviations


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
