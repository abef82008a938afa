"""The figure of a table: a panel for each section, lines or points, the dense model, and no texts that overlap."""

import math

import pytest

from statprune.analysis.table_figures import draw_table, figure_of
from statprune.analysis.tables import Built, Entry
from statprune.config.table_files import table_names
from statprune.config.table_spec import load_table
from tests.helpers.pictures import assert_readable, legend_names

MEASURED = "perplexity on wikitext2, 141 windows of 4096 (Llama-2-7B) or 2048 (Llama-3-8B) tokens"


def one_seed(mean: float) -> Entry:
    return Entry(mean, None, 1, None, None)


def filled(name: str) -> Built:
    """A table with made-up numbers; the first rows lie far above the rest, as magnitude's do."""
    table = load_table(name, "bundled")
    places = dict.fromkeys(cell.place for cell in table.cells)
    entries = {
        place: Entry(900 / (1 + table.rows.index(place[1])) + number % 7, 1.5, 2, None, None)
        for number, place in enumerate(places)
    }
    return Built(table, entries, "", measured=MEASURED)


@pytest.mark.parametrize("name", table_names())
def test_the_figure_of_every_table_is_readable(name):
    built = filled(name)
    figure = figure_of(built)
    has_categories = not built.table.axis or "[" in built.table.columns[0]
    assert_readable(figure, has_legend=bool(figure.legends), has_categories=has_categories)


@pytest.mark.parametrize("name", table_names())
def test_the_figure_of_every_table_has_a_panel_for_each_section(name):
    built = filled(name)
    assert len(figure_of(built).axes) == len(built.table.sections)


@pytest.mark.parametrize("name", table_names())
def test_the_figure_of_every_table_names_its_rows_and_columns(name):
    built = filled(name)
    figure, table = figure_of(built), built.table
    figure.canvas.draw()
    drawn = {text.get_text() for axes in figure.axes for text in axes.get_yticklabels() + axes.get_xticklabels()}
    drawn |= set(legend_names(figure)) if figure.legends else set()
    assert drawn >= set(table.rows) and (len(table.columns) == 1 or drawn >= set(table.columns))


@pytest.fixture
def line():
    """The one line of a figure of Wanda over calibration windows."""
    table = load_table("calibration_size", "bundled")
    entries = {
        ("SmolLM2-135M", "Wanda", column): Entry(40 + n, n / 2, 3, None, None) for n, column in enumerate(table.columns)
    }
    (container,) = figure_of(Built(table, entries, "")).axes[0].containers
    return container.lines


def test_a_line_shows_means_where_their_columns_are(line):
    assert line[0].get_xydata().tolist() == [[2, 40], [4, 41], [8, 42], [16, 43], [32, 44]]


def test_bars_show_deviations(line):
    ends = [segment[:, 1].tolist() for segment in line[2][0].get_segments()]
    assert ends == [[40 + n - n / 2, 40 + n + n / 2] for n in range(5)]


def test_a_table_without_runs_has_no_figure(tmp_path):
    assert draw_table(Built(load_table("calibration_size", "bundled"), {}, ""), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_tables_figure_is_written_as_png_and_pdf(tmp_path):
    paths = draw_table(filled("ladder"), tmp_path)
    assert [path.name for path in paths] == ["ladder.png", "ladder.pdf"] and all(path.is_file() for path in paths)


@pytest.mark.parametrize("limits", [(34.0, 56.0), None], ids=["narrow", "whole"])
def test_ticks_of_a_short_logarithmic_axis_say_where_they_are(limits):
    table = load_table("ladder", "bundled")
    places = [("", row, "SmolLM2-135M") for row in table.rows]
    entries = {place: one_seed(value) for place, value in zip(places, (36, 45, 54, 160), strict=True)}
    figure = figure_of(Built(table, entries, ""))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    axes.set_xlim(limits or axes.get_xlim())
    figure.canvas.draw()
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert float(label.get_text().replace(",", "")) == pytest.approx(tick)


@pytest.fixture
def two_panels(tmp_path):
    """A figure of two sections whose values lie far apart; the second has no CVR, the first one that is not finite."""
    (tmp_path / "t.yaml").write_text("""
title: Two panels
metric: perplexity
sections: {"50%": [], "2:4": []}
columns: {"8": [calibration.samples=8], "32": [calibration.samples=32]}
rows: {Dense: [], Wanda: [], CVR: []}
""")
    table = load_table(str(tmp_path / "t.yaml"), "bundled")
    values = {"50%": {"Dense": 25.0, "Wanda": 42.0, "CVR": math.nan}, "2:4": {"Dense": 25.0, "Wanda": 900.0}}
    entries = {
        (section, name, column): one_seed(value)
        for section, rows in values.items()
        for name, value in rows.items()
        for column in table.columns
    }
    return figure_of(Built(table, entries, ""))


def test_panels_far_apart_and_the_dense_model_are_all_in_the_picture(two_panels):
    assert len(two_panels.axes) == 2
    for axes in two_panels.axes:
        low, high = axes.get_ylim()
        assert axes.get_yscale() == "log" and low < 25 and high > 900


def test_the_legend_names_rows_that_the_last_panel_does_not_have(two_panels):
    assert set(legend_names(two_panels)) == {"Wanda", "CVR", "Dense"}


def test_a_panel_has_ticks_for_its_own_values(tmp_path):
    (tmp_path / "t.yaml").write_text("""
title: Two panels
metric: perplexity
sections: {"60%": [], "70%": [], "4:8": []}
columns: {none: [compensation=none], energy: [compensation=energy]}
rows: {Magnitude: [], ADMM: []}
""")
    table = load_table(str(tmp_path / "t.yaml"), "bundled")
    values = {
        "60%": {"Magnitude": 10682.0, "ADMM": 41.0},
        "70%": {"Magnitude": 272841.0, "ADMM": 72.0},
        "4:8": {"Magnitude": 842.0, "ADMM": 36.0},
    }
    entries = {
        (section, row, column): one_seed(value)
        for section, rows in values.items()
        for row, value in rows.items()
        for column in table.columns
    }
    for axes in figure_of(Built(table, entries, "")).axes:
        low, high = axes.get_xlim()
        assert 3 <= len([tick for tick in axes.get_xticks() if low <= tick <= high]) <= 6


def test_the_picture_says_what_was_measured():
    lines = figure_of(filled("ppl")).get_suptitle().splitlines()
    assert lines[0] == load_table("ppl", "bundled").title
    assert " ".join(lines[1:]) == f"{MEASURED}; bars: standard deviation over seeds"
