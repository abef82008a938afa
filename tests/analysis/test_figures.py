"""What figures of many runs hold, that no texts overlap, and that the same runs give equal files."""

import itertools
import math

import numpy
import pandas
import pytest

from statprune.analysis import figures
from statprune.analysis.collect import layers
from statprune.analysis.drawing import png
from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.pictures import assert_readable, legend_names
from tests.helpers.rows import many_rows, row


@pytest.fixture
def frame():
    return many_rows()


def with_a_lost_run(frame):
    """The rows and one whose perplexity is not finite."""
    return pandas.concat([frame, frame[:1].assign(seed=5, pruned=math.nan)])


@pytest.mark.parametrize(
    "draw,message",
    [
        (
            lambda frame, folder: figures.sparsity_curves(frame, folder, "c4"),
            "no run measured the perplexity of c4; choose one of: bundled",
        ),
        (lambda frame, folder: figures.sensitivity(frame, "method.alfa", folder), r"did you mean method\.alpha"),
        (
            lambda frame, folder: figures.sensitivity(frame, "calibration.samples", folder),
            r"all runs have calibration.samples=2; sweep it",
        ),
        (
            lambda frame, folder: figures.pareto(pandas.concat([frame, frame.assign(model="other")]), folder),
            "these have other, tiny; select one",
        ),
        (lambda frame, folder: figures.sparsity_curves(frame[frame.method == "dense"], folder), "nothing to draw"),
        (
            lambda frame, folder: figures.error_profiles({"dense": folder}, folder),
            "no readable reports of its layers",
        ),
    ],
    ids=["dataset", "key", "one value", "models", "only dense", "no reports"],
)
def test_what_cannot_be_drawn_ends_in_a_sentence_and_writes_nothing(draw, message, frame, tmp_path):
    with pytest.raises(StatpruneError, match=message):
        draw(frame, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sparsity_curves_are_readable(frame):
    figure = figures.draw_sparsity(frame, "bundled")
    assert_readable(figure)


def test_sparsity_curves_show_perplexity_on_a_logarithmic_axis_against_sparsity(frame):
    (axes,) = figures.draw_sparsity(frame, "bundled").axes
    assert axes.get_ylabel() == "perplexity" and axes.get_xlabel() == "sparsity (share of weights removed)"
    assert axes.get_yscale() == "log"


def test_sparsity_curves_name_the_dense_model_and_then_methods_in_the_registrys_order(frame):
    assert legend_names(figures.draw_sparsity(frame, "bundled"))[:3] == ["dense", "magnitude", "wanda"]


def test_series_of_a_figure_are_told_apart_without_colours(frame):
    (axes,) = figures.draw_sparsity(frame, "bundled").axes
    looks = [
        (line.get_marker(), line.get_linestyle()) for line in axes.get_lines() if line.get_marker() in "os^DvPX*<>"
    ]
    assert len(looks) == len(set(looks)) == 8


def test_sparsity_curves_count_the_runs_whose_perplexity_is_not_finite(frame):
    figure = figures.draw_sparsity(with_a_lost_run(frame), "bundled")
    assert "not drawn: 1 run whose perplexity is not finite" in figure.axes[0].get_xlabel()


SPREADS = (1.0, 3000.0)  # the second: deviations larger than their means


def figure_of_samples(spread):
    """Perplexity against calibration windows, of two methods and three seeds."""
    runs = [
        row(label, seed=seed, pruned=60 + n / 8 + spread * seed**4, **{"calibration.samples": n})
        for label, n, seed in itertools.product(("wanda", "cvr + energy"), (1, 2, 4, 8, 128), (0, 1, 2))
    ]
    return figures.draw_sensitivity(pandas.DataFrame(runs), "calibration.samples", "bundled")


@pytest.mark.parametrize("spread", SPREADS)
def test_a_sensitivity_is_readable(spread):
    assert_readable(figure_of_samples(spread))


@pytest.mark.parametrize("spread", SPREADS)
def test_counts_are_on_a_logarithmic_axis_with_their_unit(spread):
    (axes,) = figure_of_samples(spread).axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "calibration.samples (windows)"


@pytest.mark.parametrize("spread", SPREADS)
def test_the_perplexity_axis_of_a_sensitivity_is_logarithmic_where_values_lie_far_apart(spread):
    (axes,) = figure_of_samples(spread).axes
    assert axes.get_yscale() == ("log" if spread > 1 else "linear") and axes.get_ylim()[0] > 0


@pytest.mark.parametrize("spread", SPREADS)
def test_the_legend_of_a_sensitivity_says_what_its_bars_are(spread):
    title = figure_of_samples(spread).legends[0].get_title().get_text()
    assert title == "mean ± standard deviation\nof 3 seeds"


def test_words_are_ticks_of_a_sensitivity():
    words = pandas.DataFrame([row(propagation="pruned"), row(propagation="dense", pruned=51.0)])
    figure = figures.draw_sensitivity(words, "propagation", "bundled")
    assert_readable(figure)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["dense", "pruned"]


def test_a_pareto_figure_is_readable_and_counts_the_runs_that_are_not_drawn(frame):
    figure = figures.draw_pareto(with_a_lost_run(frame), "bundled")
    assert_readable(figure, has_legend=False)
    assert "not drawn: 1 run" in figure.get_suptitle()


def test_pareto_texts_stay_apart_where_points_crowd():
    draw = numpy.random.default_rng(0)
    labels = ("magnitude", "wanda", "wanda + energy", "ria", "ria + energy", "cvr", "cvr + energy", "sparsegpt")
    crowd = pandas.DataFrame([row(name, pruned=50 + draw.random(), seconds=3 + draw.random()) for name in labels])
    crowd.loc[len(crowd)] = row("magnitude + energy", pruned=900.0, seconds=90.0)  # drives the others together
    figure = figures.draw_pareto(crowd, "bundled")
    assert_readable(figure, has_legend=False)
    assert {text.get_text() for text in figure.axes[0].texts} == set(crowd.label)


def test_of_a_crowd_the_front_and_uncorrected_methods_are_named():
    draw = numpy.random.default_rng(0)
    labels = [f"{name}{more}" for name in ("wanda", "ria", "cvr", "stade") for more in ("", " + energy", " + moments")]
    labels += [f"sparsegpt + {name}" for name in ("energy", "moments", "least_squares", "columns", "rows")]
    crowd = pandas.DataFrame(
        [row(name, pruned=60 + 9 * draw.random(), seconds=3 + 40 * draw.random()) for name in labels]
    )
    crowd.loc[len(crowd)] = row("admm + rows", pruned=50.0, seconds=90.0)
    figure = figures.draw_pareto(crowd, "bundled")
    assert_readable(figure, has_legend=False)
    named = {text.get_text() for text in figure.axes[0].texts}
    assert {"wanda", "ria", "cvr", "stade", "admm + rows"} <= named and len(named) < len(labels)
    assert figure.axes[0].get_xscale() == "log"
    assert "corrected methods are named on the front alone" in figure._suptitle.get_text()


def test_a_legend_holds_the_series_with_the_lowest_perplexities_and_the_title_says_so():
    labels = [f"wanda + own{number}" for number in range(30)]
    crowd = pandas.DataFrame([row(label, pruned=50.0 + number) for number, label in enumerate(labels)])
    figure = figures.draw_sparsity(crowd, "bundled")
    assert set(legend_names(figure)) == {"dense", *labels[:20]}
    assert "the 20 series of 30 with the lowest perplexities" in figure.axes[0].get_title()
    assert_readable(figure)


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory, tiny_folder):
    """The folder of a run of CVR with energy."""
    folder = tmp_path_factory.mktemp("runs") / "cvr"
    run(tiny_job(tiny_folder, "method=cvr", "evaluation=none"), folder)
    return folder


@pytest.mark.parametrize("block", range(3))
def test_the_error_of_a_block_is_the_mean_over_its_matrices(block, pruned_run):
    values = [r.relative_output_error for r in layers(pruned_run).itertuples() if r.block == block]
    assert figures.errors(pruned_run).loc[block, "all"] == pytest.approx(sum(values) / len(values)) and len(values) == 7


def test_the_error_of_a_kind_is_that_of_its_matrix(pruned_run):
    plain = layers(pruned_run)
    expected = plain[(plain.block == 1) & (plain.layer == "mlp.down_proj")].relative_output_error.item()
    assert figures.errors(pruned_run).loc[1, "mlp.down_proj"] == pytest.approx(expected)


def test_error_profiles_have_a_panel_for_all_matrices_and_for_each_kind(pruned_run):
    table = figures.errors(pruned_run)
    figure = figures.draw_errors({"cvr + energy": table, "wanda": table / 2}, "tiny, sparsity 50%, seed 0")
    assert_readable(figure)
    assert figure.get_suptitle() == "tiny, sparsity 50%, seed 0"
    assert len(figure.axes) == 8 and legend_names(figure) == ["wanda", "cvr + energy"]


def test_the_highest_error_has_room_above_it_where_all_are_nearly_alike(pruned_run):
    table = figures.errors(pruned_run) * 0 + 0.5
    table.loc[1, "mlp.down_proj"] = 0.501  # of one kind's panel, beside "all"
    top = figures.draw_errors({"cvr + energy": table}).axes[0].get_ylim()
    assert top == (0, pytest.approx(0.501 * 1.05))


def test_errors_of_nothing_still_have_an_axis(pruned_run):
    assert figures.draw_errors({"dense": figures.errors(pruned_run) * 0}).axes[0].get_ylim() == (0, 1)


def test_error_profiles_are_written_as_png_and_pdf(pruned_run, tmp_path):
    paths = figures.error_profiles({"cvr + energy": pruned_run}, tmp_path / "figures")
    assert [path.name for path in paths] == ["errors.png", "errors.pdf"] and all(path.is_file() for path in paths)
    assert png(figures.draw_errors({"cvr + energy": figures.errors(pruned_run)})) == paths[0].read_bytes()


def test_the_same_runs_give_the_same_files(frame, tmp_path):
    frame = frame[frame.pattern == "0.5"]
    files = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        paths = figures.sparsity_curves(frame, folder) + figures.pareto(frame, folder)
        assert [path.suffix for path in paths] == [".png", ".pdf"] * 2
        files.append([path.read_bytes() for path in paths])
    assert files[0] == files[1]
