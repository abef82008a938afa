"""Series, fronts and channel shares against plain loops; what figures hold, that no texts overlap, equal files."""

import itertools
import math

import families
import numpy
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from statprune.analysis import figures
from statprune.analysis.channels import channel_scores, layer_input
from statprune.analysis.channels import main as channels_main
from statprune.analysis.collect import layers
from statprune.analysis.series import (
    kind_of,
    name_series,
    pareto_front,
    pareto_table,
    perplexities,
    sensitivity_table,
    sparsity_table,
    varied_keys,
)
from statprune.analysis.spec import load_table, table_names
from statprune.analysis.table_figures import draw_table, figure_of
from statprune.analysis.tables import Built, Entry

from statprune.core.patterns import NofM, Unstructured
from statprune.core.scores import CvrOptions
from statprune.core.statistics import InputStatistics
from statprune.errors import StatpruneError
from statprune.pruning.loop import prune
from statprune.runs.pipeline import run
from tests.helpers.command import tiny
from tests.helpers.models import tiny_llama

PROTOCOL = {"seq_len": 64, "windows": 2, "sha256": "0", "begins_with_bos": False, "torch": "2.13.0"}


def row(label="wanda", pattern="0.5", seed=0, pruned=50.0, seconds=1.0, **changes):
    """A row as ``collect`` gives it."""
    sparsity = {"0.5": 0.5, "0.6": 0.6, "2:4": 0.5}.get(pattern, 0.0)
    return {
        "metric": "perplexity",
        "on": "bundled",
        "model": "tiny",
        "label": label,
        "method": label.split(" + ")[0],
        "pattern": pattern,
        "seed": seed,
        "achieved": sparsity,
        "dense": 30.0,
        "pruned": pruned,
        "protocol": PROTOCOL,
        "calibration.samples": 2,
        "propagation": "pruned",
        "seconds.observe": seconds / 2,
        "seconds.solve": seconds / 4,
        "seconds.propagate": seconds / 4,
        "device": "cpu (x86_64)",
        "threads": 2,
        "processes": 1,
        "reused_statistics": False,
    } | changes


@pytest.fixture
def frame():
    """Four methods at two ratios with two seeds, 2:4, a sweep of alpha, a dense run."""
    methods = {"magnitude": 400, "wanda": 60, "wanda + energy": 61, "cvr + energy": 70}
    rows = [
        row(label, pattern, seed, quality * (3 if pattern == "0.6" else 1) + seed, 2 + quality / 100 + seed)
        for (label, quality), pattern, seed in itertools.product(methods.items(), ("0.5", "0.6"), (0, 1))
    ]
    rows += [row(pattern="2:4", pruned=90.0), row("dense", "dense", pruned=30.0)]
    rows += [row("cvr", pruned=80 - alpha, **{"method.alpha": alpha}) for alpha in (0.0, 0.5, 1.0)]
    return pandas.DataFrame(rows)


def drawn_texts(figure, monkeypatch):
    """Everything written in a figure, with its box in pixels."""
    seen = []
    draw = Text.draw

    def record(self, renderer):
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), Text.get_window_extent(self, renderer)))

    monkeypatch.setattr(Text, "draw", record)
    figure.canvas.draw()
    seen.clear()  # the first drawing settles the layout
    figure.canvas.draw()
    monkeypatch.undo()
    return seen


def check(figure, monkeypatch, legend=True, categories=False):
    """Axes are labelled, the legend names what is drawn, texts lie inside and apart."""
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert categories or (figure.axes[0].get_ylabel() and all(a.get_ylabel() or a.get_title() for a in figure.axes))
    assert bool(figure.legends) == legend
    texts = drawn_texts(figure, monkeypatch)
    for text, box in texts:
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, box), (second, other) in itertools.combinations(texts, 2):
        assert not box.padded(-0.5).overlaps(other.padded(-0.5)), f"{first!r} overlaps {second!r}"
    for legend in figure.legends:
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.bbox)


def legend_names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_series_are_told_apart_by_what_differs_within_a_label(frame):
    rows = frame[frame.method != "dense"]
    names = set(name_series(rows, rows.pattern.map(kind_of)))
    assert names == {
        *("magnitude", "wanda", "wanda, 2:4", "wanda + energy", "cvr + energy"),
        *("cvr, method.alpha=0", "cvr, method.alpha=0.5", "cvr, method.alpha=1"),
    }
    assert varied_keys(frame) == ["method.alpha"]
    other = pandas.DataFrame([row(), row(protocol=PROTOCOL | {"seq_len": 128})])
    assert list(name_series(other, other.pattern)) == ["wanda, seq_len=64", "wanda, seq_len=128"]
    patterns = ["0.5", "owl0.55", "2:4", "given"]
    assert list(map(kind_of, patterns)) == ["", "owl", "2:4", "given"]


def test_points_are_means_and_sample_deviations_over_seeds(frame):
    table = sparsity_table(frame).set_index(["name", "x"])
    for label, pattern in itertools.product(("magnitude", "wanda", "cvr + energy"), ("0.5", "0.6")):
        values = [r.pruned for r in frame.itertuples() if r.label == label and r.pattern == pattern]
        mean = sum(values) / len(values)
        point = table.loc[(label, float(pattern))]
        assert point["mean"] == pytest.approx(mean) and point.seeds == 2
        assert point.deviation == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)))
    assert math.isnan(table.loc[("wanda, 2:4", 0.5)].deviation)
    names = list(dict.fromkeys(sparsity_table(frame).name))
    assert names[0] == "magnitude" and names[-1].startswith("cvr")  # as in the registry
    twice = sparsity_table(pandas.concat([frame, frame], ignore_index=True)).set_index(["name", "x"])
    pandas.testing.assert_frame_equal(twice, table)  # a run made again is no further seed
    given = [row(pattern="given", achieved=x, **{"sparsity.layer_ratios": [x]}) for x in (0.4, 0.6)]
    assert list(sparsity_table(pandas.DataFrame(given)).x) == [0.4, 0.6]


def test_sensitivity_takes_numbers_switches_and_words():
    runs = [row(seed=seed, pruned=60 - n, **{"calibration.samples": n}) for n in (1, 2, 4) for seed in (0, 1)]
    table = sensitivity_table(pandas.DataFrame(runs), "calibration.samples")
    assert list(table.x) == [1.0, 2.0, 4.0] and list(table["mean"]) == [59, 58, 56] and set(table.name) == {"wanda"}
    words = pandas.DataFrame([row(propagation="pruned"), row(propagation="dense")])
    assert list(sensitivity_table(words, "propagation").x) == ["dense", "pruned"]
    switch = pandas.DataFrame([row(**{"method.statistic_calibration": value}) for value in (True, False)])
    assert list(sensitivity_table(switch, "method.statistic_calibration").x) == ["false", "true"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points):
    first, second = (pandas.Series(column, dtype=float) for column in zip(*points, strict=True))
    for (a, b), is_best in zip(points, pareto_front(first, second), strict=True):
        assert is_best == (not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points))


def test_pareto_holds_quality_against_all_seconds_of_pruning(frame):
    table = pareto_table(frame)
    wanda = table[(table.name == "wanda") & (table.pattern == "0.5")].iloc[0]
    assert wanda.seconds == pytest.approx(2 + 0.6 + 0.5) and wanda.perplexity == 60.5
    assert not table[(table.name == "magnitude") & (table.pattern == "0.6")].is_best.any()
    assert set(table.pattern) == {"0.5", "0.6", "2:4"}
    for key, value, message in (
        ("threads", 1, r"runs with different threads \(1, 2\) can't be compared"),
        ("reused_statistics", True, "1 of 2 runs used the calibration pass of another"),
    ):
        with pytest.raises(StatpruneError, match=message):
            pareto_table(pandas.DataFrame([row(), row(seed=1, **{key: value})]))


def test_what_cannot_be_drawn_is_told_in_a_sentence(frame, tmp_path):
    with pytest.raises(StatpruneError, match="no run measured the perplexity of c4; choose one of: bundled"):
        figures.sparsity_curves(frame, tmp_path, "c4")
    with pytest.raises(StatpruneError, match=r"did you mean method\.alpha"):
        figures.sensitivity(frame, "method.alfa", tmp_path)
    with pytest.raises(StatpruneError, match=r"all runs have calibration.samples=2; sweep it"):
        figures.sensitivity(frame, "calibration.samples", tmp_path)
    with pytest.raises(StatpruneError, match="these have other, tiny; select one"):
        figures.pareto(pandas.concat([frame, frame.assign(model="other")]), tmp_path)
    with pytest.raises(StatpruneError, match="nothing to draw"):
        figures.sparsity_curves(frame[frame.method == "dense"], tmp_path)
    with pytest.raises(StatpruneError, match="no run to draw"):
        perplexities(pandas.DataFrame(), "bundled")
    with pytest.raises(StatpruneError, match="no readable reports of its layers"):
        figures.error_profiles({"dense": tmp_path}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sparsity_curves(frame, monkeypatch):
    figure = figures.draw_sparsity(frame, "bundled")
    check(figure, monkeypatch)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "perplexity" and axes.get_xlabel() == "sparsity (share of weights removed)"
    assert axes.get_yscale() == "log" and legend_names(figure)[:3] == ["dense", "magnitude", "wanda"]
    looks = [
        (line.get_marker(), line.get_linestyle()) for line in axes.get_lines() if line.get_marker() in "os^DvPX*<>"
    ]
    assert len(looks) == len(set(looks)) == 8  # told apart without colours
    lost = figures.draw_sparsity(pandas.concat([frame, frame[:1].assign(seed=5, pruned=math.nan)]), "bundled")
    assert "not drawn: 1 runs whose perplexity is not finite" in lost.axes[0].get_xlabel()


@pytest.mark.parametrize("spread", [1.0, 3000.0])  # the second: deviations larger than their means
def test_sensitivities(spread, monkeypatch):
    runs = [
        row(label, seed=seed, pruned=60 + n / 8 + spread * seed**4, **{"calibration.samples": n})
        for label, n, seed in itertools.product(("wanda", "cvr + energy"), (1, 2, 4, 8, 128), (0, 1, 2))
    ]
    figure = figures.draw_sensitivity(pandas.DataFrame(runs), "calibration.samples", "bundled")
    check(figure, monkeypatch)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "calibration.samples (windows)"
    assert axes.get_yscale() == ("log" if spread > 1 else "linear") and axes.get_ylim()[0] > 0
    assert figure.legends[0].get_title().get_text() == "mean ± standard deviation\nof 3 seeds"
    words = pandas.DataFrame([row(propagation="pruned"), row(propagation="dense", pruned=51.0)])
    words = figures.draw_sensitivity(words, "propagation", "bundled")
    check(words, monkeypatch)
    assert [text.get_text() for text in words.axes[0].get_xticklabels()] == ["dense", "pruned"]


def test_pareto_texts_stay_apart_where_points_crowd(frame, monkeypatch):
    lost = pandas.concat([frame, frame[:1].assign(seed=5, pruned=math.nan)])
    figure = figures.draw_pareto(lost, "bundled")
    check(figure, monkeypatch, legend=False)
    assert "not drawn: 1 runs" in figure.get_suptitle()
    draw = numpy.random.default_rng(0)
    labels = ("magnitude", "wanda", "wanda + energy", "ria", "ria + energy", "cvr", "cvr + energy", "sparsegpt")
    crowd = pandas.DataFrame([row(name, pruned=50 + draw.random(), seconds=3 + draw.random()) for name in labels])
    crowd.loc[len(crowd)] = row("magnitude + energy", pruned=900.0, seconds=90.0)  # drives the others together
    figure = figures.draw_pareto(crowd, "bundled")
    check(figure, monkeypatch, legend=False)
    assert {text.get_text() for text in figure.axes[0].texts} == set(crowd.label)


def test_error_profiles_average_layers_by_block(tiny_folder, tmp_path, monkeypatch):
    run(tiny(tiny_folder, "method=cvr", "evaluation=none"), tmp_path / "cvr")
    table, plain = figures.errors(tmp_path / "cvr"), layers(tmp_path / "cvr")
    for block in range(3):
        values = [r.relative_output_error for r in plain.itertuples() if r.block == block]
        assert table.loc[block, "all"] == pytest.approx(sum(values) / len(values)) and len(values) == 7
    assert table.loc[1, "mlp.down_proj"] == pytest.approx(
        plain[(plain.block == 1) & (plain.layer == "mlp.down_proj")].relative_output_error.item()
    )
    figure = figures.draw_errors({"cvr + energy": table, "wanda": table / 2})
    check(figure, monkeypatch)
    assert len(figure.axes) == 8 and legend_names(figure) == ["wanda", "cvr + energy"]
    paths = figures.error_profiles({"cvr + energy": tmp_path / "cvr"}, tmp_path / "figures")
    assert [path.name for path in paths] == ["errors.png", "errors.pdf"]


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
def test_channel_shares_are_counted_and_factors_are_the_formulas(pattern):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator)
    inputs = torch.randn(40, 8, generator=generator) * torch.tensor([10.0, 1, 1, 1, 2, 1, 1, 0.1]) + 0.3
    statistics = InputStatistics(8)
    statistics.update(inputs)
    table = channel_scores(weight, statistics, pattern, CvrOptions(alpha=0.25))
    norm = inputs.double().square().sum(0).sqrt()
    factors = {
        "wanda": norm,
        "cvr": inputs.double().var(0, correction=0) ** 0.25 * (weight.double().var(0, correction=0) + 1e-8) ** -0.125,
    }
    assert table.activation.to_numpy() == pytest.approx((norm / 40**0.5).numpy(), rel=1e-5)
    for name, factor in factors.items():
        assert table[f"{name}_factor"].to_numpy() == pytest.approx((factor / factor.median()).numpy(), rel=1e-5)
        score = (weight.abs().double() * factor).numpy()
        kept = numpy.zeros((6, 8))
        groups = numpy.arange(8).reshape(-1, 8 if isinstance(pattern, Unstructured) else 4)
        for i, group in itertools.product(range(6), groups):
            for j in sorted(group, key=lambda j, i=i: -score[i, j])[: len(group) // 2]:
                kept[i, j] = 1
        assert table[f"{name}_kept"].to_numpy() == pytest.approx(kept.mean(0))


def test_a_layers_input_is_the_dense_models(tmp_path, monkeypatch):
    model, windows = tiny_llama(), torch.arange(64).view(2, 32) % 97
    seen = {}

    class Spy:
        def solve(self, weight, statistics, pattern):
            seen[len(seen)] = (weight.clone(), statistics.norm.clone())
            return weight, torch.ones_like(weight, dtype=torch.bool), {}

        needs = 1

    weight, statistics = layer_input(model, windows, 1, "mlp.down_proj")
    prune(model, windows, Spy(), Unstructured(0.0))
    assert torch.equal(seen[7 + 6][0], weight) and torch.allclose(seen[7 + 6][1], statistics.norm, rtol=1e-12)
    with pytest.raises(StatpruneError, match=r"block 1 has no layer mlp.down; choose one of: self_attn.q_proj"):
        layer_input(model, windows, 1, "mlp.down")
    with pytest.raises(StatpruneError, match="the model has blocks 0 to 2"):
        layer_input(model, windows, 3, "mlp.down_proj")
    mixture = families.tiny("MixtralConfig")
    _, statistics = layer_input(mixture, windows, 0, "mlp.experts.down_proj[1]", 0)
    assert statistics.count > 0 and statistics.variance.std() > 0  # and not what stands for an expert without tokens
    figure = figures.draw_channels(channel_scores(weight, statistics, Unstructured(0.5)), "block 1", 0.5)
    check(figure, monkeypatch)
    paths = figures.score_outliers(weight, statistics, tmp_path, "block 1, mlp.down_proj")
    assert all(path.stat().st_size > 5000 for path in paths)


def test_the_same_runs_give_the_same_files(frame, tmp_path):
    frame = frame[frame.pattern == "0.5"]
    files = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        paths = figures.sparsity_curves(frame, folder) + figures.pareto(frame, folder)
        assert [path.suffix for path in paths] == [".png", ".pdf"] * 2
        files.append([path.read_bytes() for path in paths])
    assert files[0] == files[1]
    assert files[0][0].startswith(b"\x89PNG") and files[0][1].startswith(b"%PDF")
    assert b"CreationDate" not in files[0][1] and b"Software" not in files[0][0]


def test_a_runs_channels_are_drawn_with_its_own_model_calibration_and_pattern(tiny_folder, tmp_path, capsys):
    config = tiny(tiny_folder, "method=cvr", "method.alpha=1", "sparsity.keep=2", "sparsity.of=4")
    run(config, tmp_path / "run")
    assert channels_main([str(tmp_path / "run"), "1", "mlp.down_proj"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "run" / f"channels.{kind}") for kind in ("png", "pdf")]
    assert channels_main([str(tmp_path / "run"), "9", "mlp.down_proj"]) == 1
    assert "there is no block 9" in capsys.readouterr().err
    assert channels_main([str(tmp_path / "none"), "1", "mlp.down_proj"]) == 1
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("name", table_names())
def test_every_table_has_a_figure(name, monkeypatch):
    table = load_table(name, "bundled")
    places = dict.fromkeys(cell.place for cell in table.cells)
    # the first rows lie far above the rest, as magnitude's do
    entries = {
        place: Entry(900 / (1 + table.rows.index(place[1])) + number % 7, 1.5, 2, None, None)
        for number, place in enumerate(places)
    }
    figure = figure_of(Built(table, entries, ""))
    assert len(figure.axes) == len(table.sections)
    check(figure, monkeypatch, legend=bool(figure.legends), categories=not table.axis or "[" in table.columns[0])
    drawn = {text.get_text() for axes in figure.axes for text in axes.get_yticklabels() + axes.get_xticklabels()}
    drawn |= set(legend_names(figure)) if figure.legends else set()
    assert drawn >= set(table.rows) and (len(table.columns) == 1 or drawn >= set(table.columns))


def test_a_tables_figure_shows_means_and_deviations_where_they_are(tmp_path):
    table = load_table("calibration_size", "bundled")
    entries = {
        ("SmolLM2-135M", "Wanda", column): Entry(40 + n, n / 2, 3, None, None) for n, column in enumerate(table.columns)
    }
    axes = figure_of(Built(table, entries, "")).axes[0]
    (container,) = axes.containers
    assert container.lines[0].get_xydata().tolist() == [[2, 40], [4, 41], [8, 42], [16, 43], [32, 44]]
    ends = [segment[:, 1].tolist() for segment in container.lines[2][0].get_segments()]
    assert ends == [[40 + n - n / 2, 40 + n + n / 2] for n in range(5)]
    assert draw_table(Built(table, {}, ""), tmp_path) == []


def test_ticks_of_a_short_logarithmic_axis_say_where_they_are():
    table = load_table("ladder", "bundled")
    places = [("", row, "SmolLM2-135M") for row in table.rows]
    entries = {place: Entry(value, None, 1, None, None) for place, value in zip(places, (36, 45, 54, 160), strict=True)}
    figure = figure_of(Built(table, entries, ""))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    for limits in ((34.0, 56.0), axes.get_xlim()):
        axes.set_xlim(limits)
        figure.canvas.draw()
        for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
            assert float(label.get_text().replace(",", "")) == pytest.approx(tick)


def test_panels_far_apart_and_the_dense_model_are_all_in_the_picture(tmp_path):
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
        (section, name, column): Entry(value, None, 1, None, None)
        for section, rows in values.items()
        for name, value in rows.items()
        for column in table.columns
    }
    figure = figure_of(Built(table, entries, ""))
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert axes.get_yscale() == "log" and low < 25 and high > 900
    assert set(legend_names(figure)) == {"Wanda", "CVR", "Dense"}  # the last panel has no CVR
