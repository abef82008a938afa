"""Figures of many runs, each as PNG and PDF: the same runs give the same files.

Series differ by marker and line style besides colour, so that they can be told apart in grey; a method has the same
hue in every figure.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

from analysis.channels import channel_scores
from analysis.collect import layers
from analysis.labels import place_labels
from analysis.series import method_of, method_order, pareto_table, perplexities, sensitivity_table, sparsity_table
from statprune.errors import StatpruneError
from statprune.masks import Pattern, Unstructured
from statprune.scores import CvrOptions
from statprune.statistics import InputStatistics

# Okabe and Ito's palette, which the colour-blind can tell apart; by the method's place in the registry
COLOURS = ("#E69F00", "#0072B2", "#CC79A7", "#D55E00", "#009E73", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 3)))
DPI = 150
DODGE = 2.5
PANELS = 12  # kinds of layers that are still readable side by side
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


def sparsity_curves(frame: pd.DataFrame, folder: Path, on: str = "bundled") -> list[Path]:
    """Perplexity against sparsity; paths of ``sparsity.png`` and ``.pdf``.

    Args:
        frame: of ``collect``, one model's runs.
        folder: for the files.
        on: dataset.

    Raises:
        StatpruneError: no such perplexity, several models, or nothing was pruned.
    """
    return save(draw_sparsity(frame, on), folder, "sparsity")


def sensitivity(frame: pd.DataFrame, key: str, folder: Path, on: str = "bundled") -> list[Path]:
    """Perplexity against a configuration key; paths of ``sensitivity_KEY.png`` and ``.pdf``.

    Args:
        frame: of ``collect``, one model's runs.
        key: its full name, such as ``method.alpha``; runs without it are not drawn.
        folder: for the files.
        on: dataset.

    Raises:
        StatpruneError: no such perplexity, several models, or the key has no two values.
    """
    return save(draw_sensitivity(frame, key, on), folder, f"sensitivity_{key}")


def error_profiles(folders_by_label: Mapping[str, Path], folder: Path) -> list[Path]:
    """Relative output error by block, over all layers and by kind of layer; paths of ``errors.png`` and ``.pdf``.

    Args:
        folders_by_label: folders of runs by the name their line gets.
        folder: for the files.

    Raises:
        StatpruneError: a run has no reports of its layers, as a dense one.
    """
    return save(draw_errors({label: errors(path) for label, path in folders_by_label.items()}), folder, "errors")


def pareto(frame: pd.DataFrame, folder: Path, on: str = "bundled") -> list[Path]:
    """Perplexity against the seconds pruning took, a panel for each pattern; paths of ``pareto.png`` and ``.pdf``.

    Args:
        frame: of ``collect``, one model's runs.
        folder: for the files.
        on: dataset.

    Raises:
        StatpruneError: no such perplexity, several models, or nothing was pruned.
    """
    return save(draw_pareto(frame, on), folder, "pareto")


def score_outliers(
    weight: Tensor,
    statistics: InputStatistics,
    folder: Path,
    name: str,
    pattern: Pattern | None = None,
    options: CvrOptions | None = None,
) -> list[Path]:
    """What Wanda's and CVR's scores make of a layer's channels; paths of ``channels.png`` and ``.pdf``.

    Args:
        weight: (out_features, in_features); with ``statistics`` from ``channels.layer_input``.
        statistics: of its input, with moments.
        folder: for the files.
        name: of the layer, for the title.
        pattern: what is kept; None: half of each row.
        options: CVR's parameters; None: the paper's.
    """
    pattern = pattern or Unstructured(0.5)
    table = channel_scores(weight, statistics, pattern, options)
    return save(draw_channels(table, name, pattern.target), folder, "channels")


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
def draw_sparsity(frame: pd.DataFrame, on: str) -> Figure:
    """The figure of ``sparsity_curves``."""
    rows = perplexities(frame, on)
    table = sparsity_table(rows)
    figure, axes = _with_legend(table, "sparsity (share of weights removed)", rows)
    _draw_series(axes, table)
    _draw_dense(axes, rows)
    _perplexity_axis(axes, table["mean"], always_log=True)
    _add_legend(figure, axes, table)
    return figure


@STYLE
def draw_sensitivity(frame: pd.DataFrame, key: str, on: str) -> Figure:
    """The figure of ``sensitivity``."""
    rows = perplexities(frame, on)
    table = sensitivity_table(rows, key)
    figure, axes = _with_legend(table, KEYS.get(key, key), rows)
    if key in COUNTS:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _draw_series(axes, table, DODGE)
    _draw_dense(axes, rows)
    _perplexity_axis(axes, table["mean"])
    _add_legend(figure, axes, table)
    return figure


KEYS = {
    "method.alpha": "method.alpha (reweighting strength α)",
    "calibration.samples": "calibration.samples (windows)",
    "calibration.seq_len": "calibration.seq_len (tokens)",
}
COUNTS = ("calibration.samples", "calibration.seq_len")  # swept by doubling


def _with_legend(table: pd.DataFrame, x: str, rows: pd.DataFrame) -> tuple[Figure, Axes]:
    """A figure of one panel that leaves room for a legend beside it, as wide as the names of the series."""
    if table.empty:
        raise StatpruneError("no run was pruned and has a finite perplexity; there is nothing to draw")
    width = 5.2 + 0.075 * max([24, *(len(name) for name in table.name)])
    figure = _figure((width, max(3.6, 0.22 * table.name.nunique() + 1)))
    axes = figure.add_subplot()
    missing = int(rows.pruned.isna().sum())
    axes.set_xlabel(x if not missing else f"{x}\nnot drawn: {missing} runs whose perplexity is not finite")
    axes.set_title(f"{rows.model.iloc[0]}, {rows['on'].iloc[0]}", fontsize="medium")
    return figure, axes


def _draw_series(axes: Axes, table: pd.DataFrame, dodge: float = 0) -> None:
    """A line with error bars for each series, ``dodge`` points beside the one before, so that bars do not hide bars."""
    names = list(dict.fromkeys(table.name))
    count = len(names)
    if not pd.api.types.is_numeric_dtype(table.x):
        axes.set_xticks(range(table.x.nunique()), sorted(set(table.x)))
        table = table.assign(x=table.x.rank(method="dense") - 1)
    # limits first: what is drawn beside its place does not move them
    spread = table.deviation.fillna(0)
    for ends in (table["mean"] - spread, table["mean"] + spread):
        axes.plot(table.x, ends, linestyle="none")
    for index, (name, group) in enumerate(table.groupby("name", sort=False)):
        beside = ScaledTranslation((index - (count - 1) / 2) * dodge / 72, 0, _root(axes).dpi_scale_trans)
        style = _style(names, str(name))
        axes.errorbar(group.x, group["mean"], group.deviation, label=name, transform=axes.transData + beside, **style)


def _figure(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches, without pyplot and its global state."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _root(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _style(names: Sequence[str], name: str) -> dict[str, Any]:
    """Hue by method, from dark to light among its series, hollow where more than the method is told.

    Marker and line are by place, so that no two series of a figure have both.
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
        "markerfacecolor": None if name == method else "white",
        "linestyle": LINES[index % len(LINES)],
    }


def _draw_dense(axes: Axes, rows: pd.DataFrame) -> None:
    """A dotted line at the dense model's perplexity; several where runs were evaluated in several ways."""
    for number, value in enumerate(sorted(set(rows.dense.dropna().round(6)))):
        axes.axhline(value, color="0.35", linestyle=":", linewidth=1.2, label="" if number else "dense")


def _perplexity_axis(axes: Axes, means: Iterable[float], always_log: bool = False) -> None:
    """Label the axis; logarithmic with plain numbers as ticks where values lie far apart."""
    axes.set_ylabel("perplexity")
    values = [*means, *(float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_linestyle() == ":")]  # type: ignore[index, arg-type]
    low, high = min(values), max(values)
    if not always_log and high < 4 * low:
        return
    axes.set_yscale("log", nonpositive="clip")
    # a deviation larger than its mean reaches below zero: it may leave the picture, but not stretch it
    axes.set_ylim(max(axes.get_ylim()[0], low / 2), None)
    log_ticks(axes.yaxis, low, high)


def log_ticks(axis: Any, low: float, high: float) -> None:
    """Plain numbers at 1, 2 and 5 times each power of ten, or at the powers alone where there are many."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _add_legend(figure: Figure, axes: Axes, table: pd.DataFrame | None = None) -> None:
    title = seeds_text(table.seeds) if table is not None else None
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", title=title, alignment="left", handlelength=4)


def seeds_text(seeds: pd.Series) -> str:
    """What the bars are, for the legend."""
    low, high = seeds.min(), seeds.max()
    if high == 1:
        return "one seed each"
    return f"mean ± standard deviation\nof {high if low == high else f'{low} to {high}'} seeds"


def errors(run: Path) -> pd.DataFrame:
    """Mean relative output error of a run's layers by block: a column for each kind of layer, and ``all`` of them.

    Experts of one block are averaged with the layers of their kind; ``all`` weighs every matrix alike.

    Raises:
        StatpruneError: the run has no reports of its layers, as a dense one.
    """
    try:
        table = layers(run)
    except (OSError, ValueError) as error:
        raise StatpruneError(f"{run} has no readable reports of its layers; give a run that has pruned some") from error
    if "relative_output_error" not in table:
        raise StatpruneError(f"{run} has no output errors of its layers; run it again")
    table["kind"] = table.layer.map(lambda name: re.sub(r"\.\d+(?=\.|$)", "", name))
    by_kind = table.pivot_table("relative_output_error", "block", "kind", aggfunc="mean", sort=False)
    by_kind.insert(0, "all", table.groupby("block").relative_output_error.mean())
    return by_kind.sort_index()


@STYLE
def draw_errors(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The figure of ``error_profiles`` of tables from ``errors``."""
    tables = dict(sorted(tables.items(), key=lambda item: (method_order(item[0]), item[0])))
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table if kind != "all"))
    if len(kinds) > PANELS:
        kinds = []
    rows = math.ceil(len(kinds) / 4)
    width = 7.2 + 0.075 * max(len(name) for name in tables)
    figure = _figure((width, 3.2 + 1.7 * rows))
    grid = figure.add_gridspec(1 + rows, 4, height_ratios=[1.9] + [1] * rows)
    first = figure.add_subplot(grid[0, :])
    panels = {"all": first}
    for number, kind in enumerate(kinds):
        place = grid[1 + number // 4, number % 4]
        panels[str(kind)] = figure.add_subplot(place, sharex=first, sharey=first)
    for kind, axes in panels.items():
        axes.set_title("mean of all layers" if kind == "all" else kind, fontsize="small")
        for label, table in tables.items():
            if kind in table:
                size = 4 if kind == "all" else 2
                axes.plot(table.index, table[kind], label=label, markersize=size, **_style(list(tables), label))
        if kind != "all":
            axes.tick_params(labelsize="x-small")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    first.set_ylim(bottom=0)
    first.set_ylabel("relative output error")
    first.set_xlabel("block")
    _label_outer(list(panels.values())[1:])
    _add_legend(figure, first)
    return figure


def _label_outer(panels: Sequence[Axes]) -> None:
    for number, axes in enumerate(panels):
        axes.set_xlabel("block", fontsize="small")
        if number % 4 == 0:
            axes.set_ylabel("rel. output error", fontsize="small")
        else:
            axes.tick_params(labelleft=False)


@STYLE
def draw_pareto(frame: pd.DataFrame, on: str) -> Figure:
    """The figure of ``pareto``."""
    rows = perplexities(frame, on)
    table = pareto_table(rows)
    patterns = list(dict.fromkeys(table.sort_values("pattern").pattern))
    columns = min(len(patterns), 2)
    lines = math.ceil(len(patterns) / columns)
    longest = max(len(name) for name in table.name)
    figure = _figure(((4.2 + 0.06 * longest) * columns + 1, 3.6 * lines))
    order = list(dict.fromkeys(table.name))
    for number, pattern in enumerate(patterns):
        axes = figure.add_subplot(lines, columns, number + 1)
        _draw_points(axes, table[table.pattern == pattern], order)
        axes.set_title(f"sparsity {pattern}", fontsize="small")
    seeds = seeds_text(table.seeds).replace(" ± standard deviation\n", " ")
    missing = int(rows.pruned.isna().sum())
    lost = f"\nnot drawn: {missing} runs whose perplexity is not finite" if missing else ""
    figure.suptitle(f"{rows.model.iloc[0]}, {on}; {seeds}; line: Pareto front{lost}", fontsize="medium")
    for _ in range(2):  # ticks, which take room, depend on the room there is
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed where points are now
    for axes, pattern in zip(figure.axes, patterns, strict=True):
        here = table[table.pattern == pattern]
        place_labels(axes, list(zip(here.seconds, here.perplexity, here.name, strict=True)))
    return figure


def _draw_points(axes: Axes, table: pd.DataFrame, order: Sequence[str]) -> None:
    """A point for each series, and the front: the lowest perplexity that so many seconds buy."""
    for row in table.itertuples():
        style = _style(order, str(row.name)) | {"linestyle": "none"}
        axes.plot([row.seconds], [row.perplexity], **style)
    axes.set_xlabel("seconds of pruning (observe, solve, propagate)")
    _perplexity_axis(axes, table.perplexity)
    axes.margins(0.3, 0.2)
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.set(xlim=(max(0, axes.get_xlim()[0]), right), ylim=axes.get_ylim())
    front = table[table.is_best].sort_values("seconds")
    seconds, best = [front.seconds.iloc[0], *front.seconds, right], [top, *front.perplexity, front.perplexity.iloc[-1]]
    axes.step(seconds, best, where="post", color="0.6", linewidth=1, zorder=1)


@STYLE
def draw_channels(table: pd.DataFrame, name: str, target: float) -> Figure:
    """The figure of ``score_outliers`` of a table from ``channel_scores``; ``target``: share of weights removed."""
    figure = _figure((9, 3.9))
    left, right = figure.subplots(1, 2)
    for method, text in (("wanda", "wanda: ‖x‖"), ("cvr", "cvr: a · c")):
        style = _style(("wanda", "cvr"), method) | {"linestyle": "none", "markersize": 3}
        style |= {"markerfacecolor": "none"} if method == "cvr" else {}
        left.plot(table.activation, table[f"{method}_factor"], label=text, **style)
        right.plot(table.activation, table[f"{method}_kept"], label=text, **style)
    right.axhline(1 - target, color="0.35", linestyle=":", label="share kept of the whole matrix")
    left.set_yscale("log")
    left.set_ylabel("score factor of the channel (median = 1)")
    right.set_ylabel("share of the channel's weights kept")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    log_ticks(left.yaxis, *left.get_ylim())
    for axes in (left, right):
        axes.set_xscale("log")
        log_ticks(axes.xaxis, *axes.get_xlim())
        axes.set_xlabel("activation of the input channel (root mean square)")
    figure.suptitle(name, fontsize="medium")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
