"""A built table as a figure: lines where its columns are numbers, or else a point for each cell."""

import math
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from statprune.analysis.drawing import MARKERS, STYLE, WIDE, draw_dense, empty_figure, log_scale, save, style_of
from statprune.analysis.measures import MEASURES, higher_is_better
from statprune.analysis.tables import Built

UNITS = {metric: measure.axis for metric, measure in MEASURES.items()} | {"layer_seconds": "seconds for one layer"}


def draw_table(built: Built, folder: Path) -> list[Path]:
    """Write a table's figure.

    Args:
        built: the table; a row named Dense becomes a dotted line.
        folder: for the files.

    Returns:
        Paths of ``NAME.png`` and ``.pdf``; none where no cell was run.
    """
    return save(figure_of(built), folder, built.table.name) if built.entries else []


@STYLE
def figure_of(built: Built) -> Figure:
    """The figure of ``draw_table``: a panel for each section; bars are standard deviations over seeds."""
    table = built.table
    numbers = _numbers(table.columns)
    sections = [name for name in table.sections if any(place[0] == name for place in built.entries)]
    width, height = (4.6, 3.9) if numbers else (3.6, 0.34 * len(_rows(built)) + 1.8)
    longest = max(map(len, table.rows if numbers else table.columns + table.rows))
    title = _title(built)
    width = max(width * len(sections) + 0.08 * longest, 0.075 * max(map(len, title.splitlines())) + 0.3)
    figure = empty_figure((width, height))
    panels = figure.subplots(1, len(sections), sharey=True, squeeze=False)[0]
    for section, axes in zip(sections, panels, strict=True):
        axes.set_title(section, fontsize="medium")
        if numbers:
            _draw_lines(axes, built, section, numbers)
        else:
            _draw_points(axes, built, section)
    # last: panels share their limits, which setting a scale fixes
    if numbers:
        _scale(panels[0], built, "y")
        panels[0].set_ylabel(UNITS[table.metric])
    else:
        for section, axes in zip(sections, panels, strict=True):
            _scale(axes, built, "x", section)
    figure.suptitle(title, fontsize="medium")
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    handles = {label: handle for pairs in named for handle, label in pairs}
    if len(handles) > 1:
        fitting = max(1, int(width / (0.09 * max(map(len, handles)) + 0.8)))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=fitting, handlelength=4)
    return figure


def _title(built: Built) -> str:
    """The table's title, and below it what was measured and what bars are."""
    bars = any(entry.deviation is not None for entry in built.entries.values())
    notes = [built.measured] if built.measured else []
    notes += ["bars: standard deviation over seeds"] if bars else []
    lines = textwrap.wrap("; ".join(notes), 90, break_long_words=False)
    return "\n".join([built.table.title, *lines])


def _numbers(columns: list[str]) -> list[float] | None:
    """The columns' labels as numbers; None unless they are several numbers."""
    try:
        numbers = [float(label.removesuffix("%")) for label in columns]
    except ValueError:
        return None
    return numbers if len(numbers) > 1 else None


def _rows(built: Built) -> list[str]:
    return [row for row in built.table.rows if not _is_dense(row)]


def _is_dense(row: str) -> bool:
    return row.lower() == "dense"


def _draw_lines(axes: Axes, built: Built, section: str, numbers: list[float]) -> None:
    """A line for each row over the columns' numbers."""
    table = built.table
    for row in _rows(built):
        cells = [built.entries.get((section, row, column)) for column in table.columns]
        points = [(x, cell) for x, cell in zip(numbers, cells, strict=True) if cell is not None]
        if points:
            values = [cell.mean for _, cell in points]
            spread = [cell.deviation or 0 for _, cell in points]
            axes.errorbar([x for x, _ in points], values, spread, label=row, **style_of(_rows(built), row))
    if min(numbers) > 0 and max(numbers) >= 16 * min(numbers):  # swept by doubling
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(numbers, table.columns)
    axes.minorticks_off()
    axes.set_xlabel(table.axis)
    draw_dense(axes.axhline, _dense(built, section), "Dense")


def _draw_points(axes: Axes, built: Built, section: str) -> None:
    """A line of points for each row, one for each column; the table's order from top to bottom."""
    table, rows = built.table, _rows(built)
    count = len(table.columns)
    for number, column in enumerate(table.columns):
        column_cells = [(y, built.entries.get((section, row, column))) for y, row in enumerate(rows)]
        shift = (number - (count - 1) / 2) * 0.5 / count
        cells = [(y + shift, entry) for y, entry in column_cells if entry is not None]
        shade = str(0.65 * number / max(1, count - 1))
        axes.errorbar(
            [entry.mean for _, entry in cells],
            [y for y, _ in cells],
            xerr=[entry.deviation or 0 for _, entry in cells],
            linestyle="none",
            label=column,
            color=shade,
            marker=MARKERS[number % len(MARKERS)],
        )
    draw_dense(axes.axvline, _dense(built, section), "Dense")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(UNITS[table.metric])


def _dense(built: Built, section: str) -> list[float]:
    """The dense model's values in a section."""
    return [entry.mean for place, entry in built.entries.items() if place[0] == section and _is_dense(place[1])]


def _scale(axes: Axes, built: Built, which: str, section: str | None = None) -> None:
    """Make the axis logarithmic where values of the table lie far apart; percentages have a linear axis.

    Ticks are those that the values of the panel's section need, or of all sections where panels share the axis.
    """
    finite = {place: entry.mean for place, entry in built.entries.items() if math.isfinite(entry.mean)}
    values = list(finite.values())
    if values and not higher_is_better(built.table.metric) and 0 < min(values) <= max(values) / WIDE:
        shown = [mean for place, mean in finite.items() if section in (None, place[0])] or values
        log_scale(axes, which, min(shown), max(shown))
