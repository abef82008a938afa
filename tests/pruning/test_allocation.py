"""Ratios spread over layers: OWL against its authors' formula, given ratios, and the exact overall sparsity."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statprune.core.methods import get_method
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ConfigError, ModelError
from statprune.model.loading import sparsity
from statprune.pruning.allocation import Owl, given_ratios, outlier_fraction, owl_ratios, whole_counts
from statprune.pruning.loop import prune
from statprune.walk.batches import capture, observe
from statprune.walk.discover import find_blocks
from tests.helpers.command import composed
from tests.helpers.models import tiny_llama

WINDOWS = torch.randint(0, 97, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def blocks(model):
    return find_blocks(model, WINDOWS)


@settings(max_examples=40, deadline=None)
@given(
    fractions=st.lists(st.floats(0, 0.2), min_size=3, max_size=3),
    ratio=st.floats(0.2, 0.8),
    max_deviation=st.floats(0, 0.1),
)
@example(fractions=[0.0, 0.0, 5e-324], ratio=0.5, max_deviation=0.0625)
def test_owl_ratios_are_the_authors(blocks, fractions, ratio, max_deviation):
    """Their code: densities (f − min) / (max − min) · 2λ, shifted so that their mean is the density wanted."""
    ratios = owl_ratios(blocks, fractions, ratio, max_deviation)
    low, high = min(fractions), max(fractions)
    densities = [(f - low) / (high - low) * 2 * max_deviation if high > low else 0.0 for f in fractions]
    mean = sum(densities) / 3
    for block in blocks:
        wanted = 1 - (densities[block.index] - mean + 1 - ratio)
        assert [ratios[block.full(layer)] for layer in block.layers] == pytest.approx([wanted] * 7, abs=1e-9)


def test_owl_stays_within_its_bounds_and_keeps_the_mean(blocks):
    ratios = owl_ratios(blocks, [0.0, 0.1, 0.2], 0.95, 0.4)
    values = [ratios[block.full(block.layers[0])] for block in blocks]
    assert values[0] == 0.99 and 0 <= values[2] < values[1] <= 0.99
    assert sum(values) / 3 == pytest.approx(0.95)


def test_outliers_are_counted_over_the_whole_block(model, blocks):
    (batch,) = capture(model, blocks, WINDOWS, 4)
    statistics = observe(blocks[0], [batch], StatisticsKind.MOMENTS, None, False)
    scores = []
    for layer in blocks[0].layers:
        norm = statistics[layer.name].norm.tolist()
        scores += [abs(w) * norm[j] for row in layer.read().double().tolist() for j, w in enumerate(row)]
    mean = sum(scores) / len(scores)
    wanted = sum(score > 2 * mean for score in scores) / len(scores)
    assert 0 < wanted < 0.5
    assert outlier_fraction(blocks[0], statistics, 2.0) == pytest.approx(wanted, abs=2 / len(scores))


def test_outliers_do_not_follow_the_number_of_tokens(model, blocks):
    """An expert with pooled statistics has a norm over far more tokens; per token it is like the others'."""
    (batch,) = capture(model, blocks, WINDOWS, 4)
    statistics = observe(blocks[0], [batch], StatisticsKind.MOMENTS, None, False)
    wanted = outlier_fraction(blocks[0], statistics, 2.0)
    name = blocks[0].layers[0].name
    many = InputStatistics.pooled([statistics[name]] * 100)
    assert outlier_fraction(blocks[0], statistics | {name: many}, 2.0) == pytest.approx(wanted, abs=1e-4)


def test_owl_takes_a_ratio_above_its_bound(blocks):
    ratios = owl_ratios(blocks, [0.0, 0.1, 0.2], 0.995, 0.0)
    assert all(ratio == pytest.approx(0.995) for ratio in ratios.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.floats(0, 0.99), st.integers(0, 5))
def test_an_exact_ratio_removes_a_whole_number_spread_over_rows(rows, columns, ratio, seed):
    score = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    keep = Unstructured(ratio, Group.row, exact=True).select(score)
    removed = (~keep).sum(1).tolist()
    assert sum(removed) == int(ratio * rows * columns + 1e-9) and max(removed) - min(removed) <= 1
    for row, mask in zip(score, keep, strict=True):
        assert max([0.0, *row[~mask].tolist()]) <= min([1.0, *row[mask].tolist()])


@pytest.mark.parametrize("method", ["magnitude", "wanda", "cvr", "sparsegpt"])
@pytest.mark.parametrize("allocation", [Owl(2.0, 0.2), [0.31, 0.5, 0.77], {"mlp": 0.613, r"layers\.0\.": 0.2}])
def test_the_overall_ratio_is_met(method, allocation):
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    prune(model, WINDOWS, get_method(method), Unstructured(0.437), allocation=allocation)
    total = sum(layer.weights for block in blocks for layer in block.layers)
    if isinstance(allocation, Owl):
        wanted = 0.437
    else:
        ratios = given_ratios(blocks, allocation, 0.437)
        wanted = sum(ratios[block.full(layer)] * layer.weights for block in blocks for layer in block.layers) / total
        for block in blocks:
            for layer in block.layers:
                zeros = int((layer.stored == 0).sum())
                assert abs(zeros - ratios[block.full(layer)] * layer.weights) <= 1.5, layer.name
    assert sparsity(blocks) == pytest.approx(wanted, abs=1 / total)


def test_high_ratios_may_empty_a_column_block():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    ratios = [0.99, 0.9, 0.97]
    prune(model, WINDOWS, get_method("sparsegpt", block_size=1), Unstructured(0.5), blocks=blocks, allocation=ratios)
    wanted = sum(ratios) / 3
    assert sparsity(blocks) == pytest.approx(wanted, abs=1e-4)


def test_uniform_exactness_survives_rounding_in_every_layer(blocks):
    ratios = whole_counts(blocks, {block.full(layer): 1 / 3 for block in blocks for layer in block.layers})
    removed = [ratios[block.full(layer)] * layer.weights for block in blocks for layer in block.layers]
    assert all(abs(count - round(count)) < 1e-9 for count in removed)
    total = sum(layer.weights for block in blocks for layer in block.layers)
    assert abs(sum(removed) - total / 3) < 1


def test_ratios_that_fit_no_layer_are_refused(blocks):
    with pytest.raises(ModelError, match="has 2 ratios, but the model has 3 blocks"):
        given_ratios(blocks, [0.5, 0.5], 0.5)
    with pytest.raises(ModelError, match=r"attn_proj decides no layer's ratio; names are like model\.layers\.0"):
        given_ratios(blocks, {"attn_proj": 0.5}, 0.5)
    with pytest.raises(ModelError, match="only unstructured sparsity can be allocated"):
        prune(tiny_llama(), WINDOWS, get_method("wanda"), NofM(2, 4), allocation=Owl())


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["sparsity.allocation=owl", "sparsity='2_4'"], "not for N:M"),
        (["sparsity.max_deviation=0.1"], "is for sparsity.allocation=owl"),
        (["sparsity.allocation=owl", "sparsity.max_deviation=0.7"], r"outside \[0, 0.5\)"),
        (["sparsity.layer_ratios=[0.5,1.5]"], r"has 1.5, which is no number in \[0, 1\)"),
        (["sparsity.layer_ratios=[0.5]", "sparsity.ratio=0.5"], "together with a list"),
        (["sparsity.layer_ratios=0.5"], "is neither a list"),
        (["sparsity.layer_ratios=[0.5]", "sparsity.allocation=owl"], "both decide the ratios"),
        (["sparsity.layer_ratios={mlp*+?:0.5}"], "no regular expression"),
    ],
)
def test_bad_allocations_are_reported_by_the_config(overrides, message):
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


def test_the_record_of_a_list_names_no_other_ratio():
    job = composed("sparsity.layer_ratios=[0.4,0.6]").resolved()["sparsity"]
    assert job["ratio"] is None and job["layer_ratios"] == [0.4, 0.6]
    owl = composed("sparsity.allocation=owl", "sparsity.ratio=0.7").resolved()["sparsity"]
    assert owl["ratio"] == 0.7 and (owl["outlier_threshold"], owl["max_deviation"]) == (5.0, 0.08)
