"""What all figures share: files that are the same from day to day, colours and markers, axes and legends.

Series differ by marker and line style besides colour, so that they can be told apart in grey; a method has the same
hue in every figure.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from statprune.analysis.series import method_of, method_order

# Okabe and Ito's palette, which colour-blind people can tell apart; by the method's place in the registry
COLOURS = ("#E69F00", "#0072B2", "#CC79A7", "#D55E00", "#009E73", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 3)))
DPI = 150
WIDE = 4  # times the smallest value: larger ranges get a logarithmic axis
FIXED = {  # what would differ from day to day and from version to version
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.hinting": "none",  # texts have the same size at every resolution, and in the PDF
    "pdf.fonttype": 42,  # text stays text
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.markersize": 5,
    "errorbar.capsize": 2,
}
STYLE = matplotlib.rc_context(RC)


@STYLE
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write PNG and PDF with fixed metadata; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]", "-", name)
    paths = [folder / f"{stem}.{kind}" for kind in FIXED]
    for path, metadata in zip(paths, FIXED.values(), strict=True):
        figure.savefig(path, dpi=DPI, metadata=metadata)
    return paths


@STYLE
def png(figure: Figure) -> bytes:
    """The file's bytes that ``save`` writes as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata=FIXED["png"])
    return buffer.getvalue()


def empty_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a size in inches, without pyplot and its global state."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def root_of(axes: Axes) -> Figure:
    """The figure that the axes are in."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def style_of(names: Sequence[str], name: str) -> dict[str, Any]:
    """Style of a series: hue by method, from dark to light among its series; hollow where the name is not the method's.

    Marker and line depend on the place, so that no two series of a figure share both.

    Args:
        names: of all series of the figure.
        name: of this one.
    """
    index, method = names.index(name), method_of(name)
    colour = np.array(to_rgb(COLOURS[min(method_order(name), len(COLOURS) - 1)]))
    same = [other for other in names if method_of(other) == method]
    if len(same) > 1:
        shade = same.index(name) / (len(same) - 1)  # 0: half black, 1: half white
        colour = 0.5 * colour * (1 - shade) + (0.5 + 0.5 * colour) * shade
    return {
        "color": tuple(colour),
        "marker": MARKERS[index % len(MARKERS)],
        "markerfacecolor": None if name.lower() == method else "white",
        "linestyle": LINES[index % len(LINES)],
    }


def draw_dense(line: Callable[..., object], values: Iterable[float], label: str = "dense") -> None:
    """Draw a dotted line at the dense model's value, or several where there are several values.

    Args:
        line: ``axes.axhline`` or ``axes.axvline``.
        values: of the dense model.
        label: for the legend.
    """
    for number, value in enumerate(sorted(set(values))):
        line(value, color="0.35", linestyle=":", linewidth=1.2, label="" if number else label)


def perplexity_axis(axes: Axes, means: Iterable[float], always_log: bool = False) -> None:
    """Label the axis; logarithmic with plain numbers as ticks where values lie far apart."""
    axes.set_ylabel("perplexity")
    values = [*means, *(float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_linestyle() == ":")]  # type: ignore[index, arg-type]
    low, high = min(values), max(values)
    if always_log or high >= WIDE * low:
        log_scale(axes, "y", low, high)


def log_scale(axes: Axes, which: str, low: float, high: float) -> None:
    """Make the axis ``which``, x or y, logarithmic with plain numbers as ticks, for values from ``low`` to ``high``."""
    axes.set(**{f"{which}scale": "log"})
    # a deviation larger than its mean reaches below zero: it may leave the picture, but must not stretch it
    bottom, top = getattr(axes, f"get_{which}lim")()
    axes.set(**{f"{which}lim": (max(bottom, low / 2), top)})
    log_ticks(getattr(axes, f"{which}axis"), low, high)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Set plain numbers as ticks: 1, 2 and 5 times each power of ten, or the powers alone where there are many."""
    room = 100 if isinstance(axis, XAxis) else 1000  # labels beside each other need more of it than those below
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < room * low else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))  # 37.5 is no 38
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def add_legend(figure: Figure, axes: Axes, table: pd.DataFrame | None = None) -> None:
    """Put a legend beside the axes; its title tells what the bars of ``table`` are."""
    title = seeds_text(table.seeds) if table is not None else None
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", title=title, alignment="left", handlelength=4)


def seeds_text(seeds: pd.Series) -> str:
    """What the bars are, from the number of seeds of each point."""
    low, high = seeds.min(), seeds.max()
    if high == 1:
        return "one seed each"
    return f"mean ± standard deviation\nof {high if low == high else f'{low} to {high}'} seeds"
