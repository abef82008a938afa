"""Figures of many runs, each as PNG and PDF: the same runs give the same files."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from statprune.analysis.channels import MatrixInput, channel_scores
from statprune.analysis.collect import layers
from statprune.analysis.drawing import (
    STYLE,
    WIDE,
    add_legend,
    draw_dense,
    empty_figure,
    log_ticks,
    perplexity_axis,
    root_of,
    save,
    seeds_text,
    style_of,
)
from statprune.analysis.labels import place_labels
from statprune.analysis.series import method_order, pareto_table, perplexities, sensitivity_table, sparsity_table
from statprune.core.patterns import Pattern, Unstructured
from statprune.core.scores import CvrOptions
from statprune.errors import StatpruneError
from statprune.runs.wording import counted

DODGE = 2.5  # points between series that would hide each other's bars
PANELS = 12  # kinds of matrices that are still readable side by side


def sparsity_curves(frame: pd.DataFrame, folder: Path, on: str = "bundled") -> list[Path]:
    """Draw perplexity against sparsity; returns paths of ``sparsity.png`` and ``.pdf``.

    Args:
        frame: of ``collect``, one model's runs.
        folder: for the files.
        on: dataset.

    Raises:
        StatpruneError: no such perplexity, several models, or nothing was pruned.
    """
    return save(draw_sparsity(frame, on), folder, "sparsity")


def sensitivity(frame: pd.DataFrame, key: str, folder: Path, on: str = "bundled") -> list[Path]:
    """Draw perplexity against a configuration key; returns paths of ``sensitivity_KEY.png`` and ``.pdf``.

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
    """Draw relative output errors by block, for all matrices and by kind; returns paths of ``errors.png`` and ``.pdf``.

    Args:
        folders_by_label: folders of runs by the name of their line.
        folder: for the files.

    Raises:
        StatpruneError: a run has no reports of its matrices, as a dense one.
    """
    return save(draw_errors({label: errors(path) for label, path in folders_by_label.items()}), folder, "errors")


def pareto(frame: pd.DataFrame, folder: Path, on: str = "bundled") -> list[Path]:
    """Draw perplexity against seconds of pruning, a panel a pattern; returns paths of ``pareto.png`` and ``.pdf``.

    Args:
        frame: of ``collect``, one model's runs.
        folder: for the files.
        on: dataset.

    Raises:
        StatpruneError: no such perplexity, several models, or nothing was pruned.
    """
    return save(draw_pareto(frame, on), folder, "pareto")


def score_outliers(
    matrix: MatrixInput, folder: Path, name: str, pattern: Pattern | None = None, options: CvrOptions | None = None
) -> list[Path]:
    """Draw what Wanda's and CVR's scores make of a matrix's channels; returns paths of ``channels.png`` and ``.pdf``.

    Args:
        matrix: with its input, from ``channels.matrix_input``.
        folder: for the files.
        name: of the matrix, for the title.
        pattern: what is kept; None: half of each row.
        options: CVR's parameters; None: the paper's.
    """
    pattern = pattern or Unstructured(0.5)
    return save(draw_channels(channel_scores(matrix, pattern, options), name, pattern.target), folder, "channels")


@STYLE
def draw_sparsity(frame: pd.DataFrame, on: str) -> Figure:
    """The figure of ``sparsity_curves``."""
    rows = perplexities(frame, on)
    table = sparsity_table(rows)
    table, told = _lowest(table)
    figure, axes = _with_legend(table, "sparsity (share of weights removed)", rows, told)
    _draw_series(axes, table)
    draw_dense(axes.axhline, rows.dense.dropna().round(6))
    perplexity_axis(axes, table["mean"], always_log=True)
    add_legend(figure, axes, table)
    return figure


@STYLE
def draw_sensitivity(frame: pd.DataFrame, key: str, on: str) -> Figure:
    """The figure of ``sensitivity``."""
    rows = perplexities(frame, on)
    table = sensitivity_table(rows, key)
    table, told = _lowest(table)
    figure, axes = _with_legend(table, KEYS.get(key, key), rows, told)
    if key in COUNTS:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _draw_series(axes, table, DODGE)
    draw_dense(axes.axhline, rows.dense.dropna().round(6))
    perplexity_axis(axes, table["mean"])
    add_legend(figure, axes, table)
    return figure


KEYS = {
    "method.alpha": "method.alpha (reweighting strength α)",
    "calibration.samples": "calibration.samples (windows)",
    "calibration.seq_len": "calibration.seq_len (tokens)",
}
LEGEND = 20  # series that lines can be told apart of, and a legend has room for
CROWD = 16  # points of a panel that can all be named
COUNTS = ("calibration.samples", "calibration.seq_len")  # swept by doubling


def _lowest(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The series that a legend has room for, those that rank lowest at their places, and a line that says so."""
    names = table.name.unique()
    if len(names) <= LEGEND:
        return table, ""
    ranks = table.groupby("x")["mean"].rank(pct=True).groupby(table.name).mean()
    kept = ranks.sort_values(kind="stable").index[:LEGEND]
    return table[table.name.isin(kept)], f"\nthe {LEGEND} series of {len(names)} with the lowest perplexities"


def _with_legend(table: pd.DataFrame, x: str, rows: pd.DataFrame, told: str = "") -> tuple[Figure, Axes]:
    """A figure of one panel with room beside it for a legend as wide as the names of the series."""
    if table.empty:
        raise StatpruneError("no run was pruned and has a finite perplexity; there is nothing to draw")
    width = 5.2 + 0.075 * max([24, *(len(name) for name in table.name)])
    figure = empty_figure((width, max(3.6, 0.22 * table.name.nunique() + 1)))
    axes = figure.add_subplot()
    missing = int(rows.pruned.isna().sum())
    axes.set_xlabel(x if not missing else f"{x}\nnot drawn: {counted(missing, 'run')} whose perplexity is not finite")
    axes.set_title(f"{rows.model.iloc[0]}, {rows['on'].iloc[0]}{told}", fontsize="medium")
    return figure, axes


def _draw_series(axes: Axes, table: pd.DataFrame, dodge: float = 0) -> None:
    """A line with error bars for each series, ``dodge`` points beside the last one, so that no bar hides another."""
    names = list(dict.fromkeys(table.name))
    count = len(names)
    if not pd.api.types.is_numeric_dtype(table.x):
        axes.set_xticks(range(table.x.nunique()), sorted(set(table.x)))
        table = table.assign(x=table.x.rank(method="dense") - 1)
    # limits first: shifted series would not move them
    spread = table.deviation.fillna(0)
    for ends in (table["mean"] - spread, table["mean"] + spread):
        axes.plot(table.x, ends, linestyle="none")
    for index, (name, group) in enumerate(table.groupby("name", sort=False)):
        shift = ScaledTranslation((index - (count - 1) / 2) * dodge / 72, 0, root_of(axes).dpi_scale_trans)
        style = style_of(names, str(name))
        axes.errorbar(group.x, group["mean"], group.deviation, label=name, transform=axes.transData + shift, **style)


def errors(run: Path) -> pd.DataFrame:
    """Mean relative output error of a run's matrices by block: a column for each kind, and ``all`` of them.

    Experts of one block are averaged with the matrices of their kind; ``all`` weighs every matrix alike.

    Raises:
        StatpruneError: the run has no reports of its matrices, as a dense one.
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
def draw_errors(tables: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """The figure of ``error_profiles`` of tables from ``errors``, below a title that says what they have in common."""
    tables = dict(sorted(tables.items(), key=lambda item: (method_order(item[0]), item[0])))
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table if kind != "all"))
    if len(kinds) > PANELS:
        kinds = []
    rows = math.ceil(len(kinds) / 4)
    width = 7.2 + 0.075 * max(len(name) for name in tables)
    figure = empty_figure((width, 3.2 + 1.7 * rows))
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
                axes.plot(table.index, table[kind], label=label, markersize=size, **style_of(list(tables), label))
        if kind != "all":
            axes.tick_params(labelsize="x-small")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    highest = max((table[kind].max() for table in tables.values() for kind in panels if kind in table), default=0)
    first.set_ylim(0, 1.05 * highest if highest > 0 else 1)  # room for the highest marker, also where all are alike
    first.set_ylabel("relative output error")
    first.set_xlabel("block")
    _label_outer(list(panels.values())[1:])
    figure.suptitle(title, fontsize="medium")
    add_legend(figure, first)
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
    panels = [table[table.pattern == pattern] for pattern in patterns]
    longest = max(len(name) for panel in panels for name in _named(panel).name)
    has_crowd = any(map(_is_crowd, panels))
    height = 5.4 if has_crowd else 3.6
    figure = empty_figure(((4.2 + 0.06 * longest) * columns + 1, height * lines))
    order = list(dict.fromkeys(table.name))
    for number, (pattern, panel) in enumerate(zip(patterns, panels, strict=True)):
        axes = figure.add_subplot(lines, columns, number + 1)
        _draw_points(axes, panel, order)
        axes.set_title(f"sparsity {pattern}", fontsize="small")
    seeds = seeds_text(table.seeds).replace(" ± standard deviation\n", " ")
    missing = int(rows.pruned.isna().sum())
    lost = f"\nnot drawn: {counted(missing, 'run')} whose perplexity is not finite" if missing else ""
    crowded = "\ncorrected methods are named on the front alone" if has_crowd else ""
    figure.suptitle(f"{rows.model.iloc[0]}, {on}; {seeds}; line: Pareto front{crowded}{lost}", fontsize="medium")
    for _ in range(2):  # ticks take room, and depend on the room there is
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed beside the points as they are now
    for axes, panel in zip(figure.axes, panels, strict=True):
        here = _named(panel)
        place_labels(axes, list(zip(here.seconds, here.perplexity, here.name, strict=True)))
    return figure


def _is_crowd(table: pd.DataFrame) -> bool:
    """Whether there are more points in a panel than names have room beside."""
    return len(table) > CROWD


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The points that are named: all, or of a crowd those on the front and methods without a correction."""
    return table[table.is_best | ~table.name.str.contains(" + ", regex=False)] if _is_crowd(table) else table


def _draw_points(axes: Axes, table: pd.DataFrame, order: Sequence[str]) -> None:
    """A point for each series, and the front: the lowest perplexity for so many seconds."""
    named = set(_named(table).name)
    for row in table.itertuples():
        style = style_of(order, str(row.name)) | {"linestyle": "none", "alpha": 1 if row.name in named else 0.35}
        axes.plot([row.seconds], [row.perplexity], **style)
    axes.set_xlabel("seconds of pruning (observe, solve, propagate)")
    perplexity_axis(axes, table.perplexity)
    if is_wide := table.seconds.max() > WIDE * table.seconds.min() > 0:
        axes.set_xscale("log")
        axes.set_xlabel("seconds of pruning (observe, solve, propagate; log scale)")
    axes.margins(0.3, 0.2)
    left, right, top = *axes.get_xlim(), axes.get_ylim()[1]
    axes.set(xlim=(left if is_wide else max(0, left), right), ylim=axes.get_ylim())
    if is_wide:
        log_ticks(axes.xaxis, left, right)
    front = table[table.is_best].sort_values("seconds")
    seconds, best = [front.seconds.iloc[0], *front.seconds, right], [top, *front.perplexity, front.perplexity.iloc[-1]]
    axes.step(seconds, best, where="post", color="0.6", linewidth=1, zorder=1)


@STYLE
def draw_channels(table: pd.DataFrame, name: str, target: float) -> Figure:
    """The figure of ``score_outliers`` of a table from ``channel_scores``; ``target``: share of weights removed."""
    figure = empty_figure((9, 3.9))
    left, right = figure.subplots(1, 2)
    styles: dict[str, tuple[str, dict[str, str]]] = {  # open markers, so that those behind them can be seen
        "wanda": ("wanda: ‖x‖", {}),
        "cvr": ("cvr: a · c", {"markerfacecolor": "none"}),
    }
    for method, (text, own) in styles.items():
        style = style_of(tuple(styles), method) | {"linestyle": "none", "markersize": 3} | own
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
