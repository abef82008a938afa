"""A built table as Markdown, LaTeX and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from statprune.analysis.measures import MEASURES, higher_is_better
from statprune.analysis.provenance_text import EXPLANATION, HEAD, Footnotes, footnotes
from statprune.analysis.tables import Built, Entry
from statprune.config.table_spec import Place, place_name
from statprune.runs.wording import counted

NOT_APART = "≈"
# marks that no label has, replaced once all else is escaped
BOLD, UNDERLINED, END, RAISED = "\x01", "\x02", "\x03", "\x04"
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
LATEX |= {character: rf"\{character}" for character in "%_&#${}"}
LATEX |= {BOLD: r"\textbf{", UNDERLINED: r"\underline{", RAISED: r"\textsuperscript{", END: "}"}
LATEX |= {"<": "$<$", ">": "$>$", "±": r"$\pm$", "≈": r"$\approx$", "−": "$-$", "σ": r"$\sigma$", "α": r"$\alpha$"}
CSV_COLUMNS = (
    *("section", "row", "column", "mean", "deviation", "seeds"),
    *("difference", "low", "high", "difference_unit", "published", "delta"),
    *("published_source", "published_protocol", "published_elsewhere"),
    *("date", "commit", "device", "threads"),
)


@dataclass(frozen=True)
class Style:
    """How a kind of text shows things: formats with a place for them.

    Attributes:
        best: for the best value of a column.
        second: for the second.
        footnote: for the mark beside the distance from a published value; None: marks have a column of their own.
    """

    best: str
    second: str
    footnote: str | None = None


MARKDOWN = Style("**{}**", "<u>{}</u>")
TEX = Style(f"{BOLD}{{}}{END}", f"{UNDERLINED}{{}}{END}", f"{RAISED}{{}}{END}")


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
        columns = _columns(built, section, MARKDOWN)
        heads = ["", *(head for column in columns for head in column.heads)]
        if section:
            lines += [f"**{section}**", ""]
        lines += [_markdown_line(heads), _markdown_line(["---"] * len(heads))]
        for row in table.rows:
            cells = [cell for column in columns for cell in column.cells(row)]
            if any(cells):
                lines.append(_markdown_line([row, *cells]))
        lines.append("")
    return "\n".join([*lines, *_sources(built), *_notes(built), ""])


def to_latex(built: Built) -> str:
    """One tabular with booktabs; a rule between sections."""
    body: list[str] = []
    heads: list[str] = []
    for section in built.table.sections:
        columns = _columns(built, section, TEX)
        heads = [head for column in columns for head in column.heads]
        if section:
            body += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_escaped(section)}}} \\"]
        body.append(r"\midrule")
        for row in built.table.rows:
            cells = [cell for column in columns for cell in column.cells(row)]
            if any(cells):
                body.append(" & ".join(_escaped(cell) for cell in [row, *cells]) + r" \\")
    first = [rf"% {note}" for note in _notes(built) if note]
    first += [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    first.append(" & ".join(["", *map(_escaped, heads)]) + r" \\")
    return "\n".join([*first, *body, r"\bottomrule", r"\end{tabular}", *_tex_footnotes(built), ""])


def to_csv(built: Built) -> str:
    """A row for each cell, with everything that is known of it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    unit = MEASURES[built.table.metric].unit if built.table.metric in MEASURES else None
    for place, entry in built.entries.items():
        interval = entry.interval
        ends = (interval.difference, interval.low, interval.high, unit) if interval is not None else (None,) * 4
        numbers = [entry.mean, entry.deviation, entry.seeds, *ends, entry.published, entry.delta]
        known = built.table.provenance.get(place)
        about = (known.origin, known.protocol, known.other_values) if known is not None else (None,) * 3
        by = astuple(entry.made) if entry.made is not None else (None,) * 4
        writer.writerow([*place, *numbers, *about, *by])
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
    """A column of a section, and those of its distances from published values and their sources, where it has some."""

    built: Built
    section: str
    name: str
    style: Style
    marks: Mapping[Place, str]

    @property
    def _has_published(self) -> bool:
        entries = self.built.entries
        return any(place[2] == self.name and entry.published is not None for place, entry in entries.items())

    @property
    def heads(self) -> list[str]:
        if not self._has_published:
            return [self.name]
        return [self.name, "− published", *([HEAD] if self.style.footnote is None else [])]

    def cells(self, row: str) -> list[str]:
        """The row's cells."""
        entry = self.built.entries.get((self.section, row, self.name))
        if entry is None:
            return [""] * len(self.heads)
        if not math.isfinite(entry.mean):
            return ["not finite", *[""] * (len(self.heads) - 1)]
        places, digits = ranks(self.built, self.section, self.name), self.built.table.decimals
        text = f"{entry.mean:.{digits}f}"
        best, second = self.style.best, self.style.second
        text = best.format(text) if row in places.best else second.format(text) if row in places.second else text
        text += "" if entry.deviation is None else f" ± {entry.deviation:.{digits}f}"
        text += f" {NOT_APART}" if entry.interval is not None and not entry.interval.is_apart else ""
        return [text, *self._published(row, entry)] if self._has_published else [text]

    def _published(self, row: str, entry: Entry) -> list[str]:
        """The distance from the published value, and the mark of its source."""
        distance, mark = self._distance(entry), self.marks.get((self.section, row, self.name), "")
        if self.style.footnote is None:
            return [distance, mark]
        return [distance + (self.style.footnote.format(mark) if mark else "")]

    def _distance(self, entry: Entry) -> str:
        if entry.delta is None or entry.published is None:
            return ""
        tolerance = self.built.table.tolerance
        is_remarkable = tolerance is not None and abs(entry.delta) > tolerance * abs(entry.published)
        return f"{entry.delta:+.{self.built.table.decimals}f}" + (" !" if is_remarkable else "")


def _columns(built: Built, section: str, style: Style) -> list[_Column]:
    marks = _footnotes(built).marks
    return [_Column(built, section, column, style, marks) for column in built.table.columns]


def _footnotes(built: Built) -> Footnotes:
    return footnotes(built.table, built.entries)


def _sources(built: Built) -> list[str]:
    """The footnotes as a list, where there are some."""
    sentences = _footnotes(built).sentences
    return [EXPLANATION, "", *(f"- {letter}: {text}" for letter, text in sentences.items()), ""] if sentences else []


def _tex_footnotes(built: Built) -> list[str]:
    """The footnotes below the tabular, a paragraph each."""
    sentences = _footnotes(built).sentences
    lines = [_escaped(f"{RAISED}{letter}{END} {text}") for letter, text in sentences.items()]
    return [r"\par\smallskip", r"{\footnotesize", *(rf"{line}\par" for line in lines), "}"] if lines else []


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
            "contains 0."
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
