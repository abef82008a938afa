"""A picture of a model's speed: tokens per second by batch size, for every form of the weights that was timed."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from statprune.analysis.drawing import COLOURS, MARKERS, STYLE, WIDE, empty_figure, log_scale, save
from statprune.evaluation.speed_report import SpeedReport
from statprune.runs.wording import counted

SPREAD_OF_FORMS = 0.5  # of the distance between two batch sizes


def draw_speed(report: SpeedReport, folder: Path) -> list[Path]:
    """Write the picture as PNG and PDF; returns their paths."""
    return save(speed_figure(report), folder, "speed")


@STYLE
def speed_figure(report: SpeedReport) -> Figure:
    """A panel for each phase: medians, with bars from the lowest to the highest round."""
    figure = empty_figure((1.9 + 2.6 * len(report.phases), 3.2))
    panels = figure.subplots(1, len(report.phases), squeeze=False)[0]
    for axes, phase in zip(panels, report.phases, strict=True):
        _panel(axes, report, phase)
    handles, labels = panels[0].get_legend_handles_labels()
    title = f"median, and range of\n{counted(report.plan.rounds, 'round')}"
    figure.legend(handles, labels, loc="outside right upper", title=title, alignment="left")
    return figure


def _panel(axes: Axes, report: SpeedReport, phase: str) -> None:
    sizes = report.plan.batch_sizes
    timed = [form for form in report.forms if form.timings]
    shifts = SPREAD_OF_FORMS * (np.arange(len(timed)) - (len(timed) - 1) / 2) / max(len(timed), 1)
    values = []
    for number, (form, shift) in enumerate(zip(timed, shifts, strict=True)):
        spreads = [report.throughput(timing, phase) for timing in form.timings]
        known = [own for own in spreads if own is not None]
        middles = np.array([own.median for own in known])
        reach = np.array([[own.median - own.lowest, own.highest - own.median] for own in known]).T
        colour = COLOURS[(number + 1) % len(COLOURS)]
        places = np.arange(len(sizes)) + shift
        axes.errorbar(
            places,
            middles,
            yerr=reach,
            fmt=MARKERS[number % len(MARKERS)],
            color=colour,
            markerfacecolor=colour if number == 0 else "white",
            label=form.name,
        )
        values += [bound for own in known for bound in (own.lowest, own.highest)]
    axes.set_title(phase)
    axes.set_xlabel("batch size")
    is_wide = max(values) >= WIDE * min(values)
    axes.set_ylabel("tokens/s, logarithmic" if is_wide else "tokens/s")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.6, len(sizes) - 0.4)
    axes.grid(visible=False, axis="x")
    if is_wide:
        log_scale(axes, "y", min(values), max(values))
    else:
        axes.set_ylim(bottom=0)
