"""What all figures share: files without dates, looks that differ, and axes whose ticks say where they are."""

import itertools

import pandas
import pytest

from statprune.analysis.drawing import draw_dense, empty_figure, log_scale, perplexity_axis, save, seeds_text, style_of

NAMES = ["magnitude", "wanda", "wanda, 2:4", "wanda + energy", "cvr, method.alpha=0", "cvr + energy"]


@pytest.fixture
def axes():
    return empty_figure((4, 3)).add_subplot()


def test_a_figure_is_saved_as_png_and_pdf_without_dates_and_versions(axes, tmp_path):
    paths = save(axes.get_figure(), tmp_path / "new", "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.pdf"]
    png, pdf = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf and b"Software" not in png


def test_a_name_becomes_one_that_every_file_system_takes(axes, tmp_path):
    paths = save(axes.get_figure(), tmp_path, "sensitivity_a/b: c")
    assert [path.name for path in paths] == ["sensitivity_a-b--c.png", "sensitivity_a-b--c.pdf"]


def test_no_two_series_share_marker_and_line():
    styles = [style_of(NAMES, name) for name in NAMES]
    looks = {(style["marker"], style["linestyle"]) for style in styles}
    assert len(looks) == len(NAMES)


def test_no_two_series_of_a_method_have_the_same_shade():
    colours = [style_of(NAMES, name)["color"] for name in NAMES]
    assert len(set(colours)) == len(NAMES)


def test_markers_are_hollow_where_more_than_the_method_is_named():
    hollow = {name for name in NAMES if style_of(NAMES, name)["markerfacecolor"] == "white"}
    assert hollow == set(NAMES) - {"magnitude", "wanda"}


def test_the_dense_model_is_named_once_however_many_values_it_has(axes):
    draw_dense(axes.axhline, [30.0, 31.0, 30.0])
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [30.0, 31.0]
    assert axes.get_legend_handles_labels()[1] == ["dense"]


@pytest.mark.parametrize("means,scale", [((30.0, 119.0), "linear"), ((30.0, 120.0), "log")])
def test_a_perplexity_axis_is_logarithmic_where_values_lie_far_apart(means, scale, axes):
    perplexity_axis(axes, means)
    assert axes.get_ylabel() == "perplexity" and axes.get_yscale() == scale


def test_the_dense_models_line_counts_for_how_far_apart_values_lie(axes):
    draw_dense(axes.axhline, [10.0])
    perplexity_axis(axes, (30.0, 40.0))
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(
    "which,limits", itertools.product("xy", [(34.0, 56.0), (30.0, 200.0), (3.0, 9.0), (2.0, 90_000.0)])
)
def test_ticks_of_a_logarithmic_axis_say_where_they_are(which, limits, axes):
    log_scale(axes, which, *limits)
    axes.set(**{f"{which}lim": limits})
    axes.get_figure().canvas.draw()
    axis = axes.xaxis if which == "x" else axes.yaxis
    for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
        assert float(label.get_text().replace(",", "")) == pytest.approx(tick)


def test_a_deviation_as_large_as_its_mean_does_not_stretch_a_logarithmic_axis(axes):
    axes.errorbar([1, 2], [30.0, 200.0], [29.9, 1.0])
    log_scale(axes, "y", 30.0, 200.0)
    assert axes.get_ylim()[0] == 15.0


@pytest.mark.parametrize(
    "seeds,text",
    [
        ([1, 1], "one seed each"),
        ([3, 3], "mean ± standard deviation\nof 3 seeds"),
        ([1, 3], "mean ± standard deviation\nof 1 to 3 seeds"),
    ],
)
def test_bars_are_explained_by_the_number_of_seeds(seeds, text):
    assert seeds_text(pandas.Series(seeds)) == text
