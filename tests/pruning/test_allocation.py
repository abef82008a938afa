"""Ratios spread over matrices: OWL against its authors' formula, explicit ratios, and the exact overall sparsity."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.coverage import sparsity
from statprune.pruning.allocation import (
    BlockRatios,
    NamedRatios,
    Owl,
    check_pattern,
    outlier_fraction,
    owl_ratios,
    whole_counts,
)
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.walk.batches import capture
from statprune.walk.collect import observe
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 16, lowest=0)
BY_BLOCK = BlockRatios((0.31, 0.5, 0.77))
BY_NAME = NamedRatios((("mlp", 0.613), (r"layers\.0\.", 0.2)))
METHODS = ["magnitude", "wanda", "cvr", "sparsegpt"]


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def blocks(model):
    return find_blocks(model, WINDOWS)


@pytest.fixture(scope="module")
def statistics(model, blocks):
    """Of the first block's inputs."""
    (batch,) = capture(model, blocks, WINDOWS, 4)
    return observe(blocks[0], [batch], StatisticsKind.MOMENTS, None, False)


def named_matrices(blocks):
    """Full name and matrix of all matrices."""
    return [(block.full_name(matrix), matrix) for block in blocks for matrix in block.matrices]


def explicit_ratios(blocks, allocation, ratio):
    """Ratios of an allocation that observes nothing."""
    return allocation.ratios(blocks, ratio, lambda: pytest.fail("nothing is to be observed"))


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
        assert [ratios[block.full_name(matrix)] for matrix in block.matrices] == pytest.approx([wanted] * 7, abs=1e-9)


def block_ratios(blocks, fractions, ratio, max_deviation):
    """OWL's ratio of each block, by its first matrix."""
    ratios = owl_ratios(blocks, fractions, ratio, max_deviation)
    return [ratios[block.full_name(block.matrices[0])] for block in blocks]


def test_owl_stays_within_its_bounds(blocks):
    values = block_ratios(blocks, [0.0, 0.1, 0.2], 0.95, 0.4)
    assert values[0] == 0.99 and 0 <= values[2] < values[1] <= 0.99


def test_owl_keeps_the_mean_at_its_bounds(blocks):
    assert sum(block_ratios(blocks, [0.0, 0.1, 0.2], 0.95, 0.4)) / 3 == pytest.approx(0.95)


def test_owl_takes_a_ratio_above_its_bound(blocks):
    ratios = owl_ratios(blocks, [0.0, 0.1, 0.2], 0.995, 0.0)
    assert all(ratio == pytest.approx(0.995) for ratio in ratios.values())


def test_outliers_are_counted_over_the_whole_block(blocks, statistics):
    scores = []
    for matrix in blocks[0].matrices:
        norm = statistics[matrix.name].norm.tolist()
        scores += [abs(w) * norm[j] for row in matrix.read().double().tolist() for j, w in enumerate(row)]
    mean = sum(scores) / len(scores)
    wanted = sum(score > 2 * mean for score in scores) / len(scores)
    assert 0 < wanted < 0.5
    assert outlier_fraction(blocks[0], statistics, 2.0) == pytest.approx(wanted, abs=2 / len(scores))


def test_outliers_do_not_follow_the_number_of_tokens(blocks, statistics):
    """An expert with pooled statistics has a norm over far more tokens; per token it is like the others'."""
    wanted = outlier_fraction(blocks[0], statistics, 2.0)
    name = blocks[0].matrices[0].name
    many = InputStatistics.pooled([statistics[name]] * 100)
    assert outlier_fraction(blocks[0], statistics | {name: many}, 2.0) == pytest.approx(wanted, abs=1e-4)


def pruned_blocks(method, allocation):
    """Blocks of a model pruned to 43.7% with an allocation."""
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    prune(model, WINDOWS, PruneSpec(get_method(method), Unstructured(0.437), allocation=allocation))
    return blocks


@pytest.mark.parametrize("method", METHODS)
def test_owl_meets_the_overall_ratio(method):
    blocks = pruned_blocks(method, Owl(2.0, 0.2))
    total = sum(matrix.weights for _, matrix in named_matrices(blocks))
    assert sparsity(blocks) == pytest.approx(0.437, abs=1 / total)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("allocation", [BY_BLOCK, BY_NAME])
def test_explicit_ratios_are_met_together(method, allocation):
    blocks = pruned_blocks(method, allocation)
    ratios, matrices = explicit_ratios(blocks, allocation, 0.437), named_matrices(blocks)
    total = sum(matrix.weights for _, matrix in matrices)
    wanted = sum(ratios[name] * matrix.weights for name, matrix in matrices) / total
    assert sparsity(blocks) == pytest.approx(wanted, abs=1 / total)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("allocation", [BY_BLOCK, BY_NAME])
def test_explicit_ratios_are_met_by_every_matrix(method, allocation):
    blocks = pruned_blocks(method, allocation)
    ratios = explicit_ratios(blocks, allocation, 0.437)
    for name, matrix in named_matrices(blocks):
        assert abs(int((matrix.stored == 0).sum()) - ratios[name] * matrix.weights) <= 1.5, name


def test_a_matrix_takes_the_ratio_of_its_block(blocks):
    ratios = explicit_ratios(blocks, BY_BLOCK, 0.437)
    assert all(
        ratios[block.full_name(matrix)] == BY_BLOCK.values[block.index] for block in blocks for matrix in block.matrices
    )


def test_a_matrix_takes_the_first_ratio_that_its_name_matches_or_the_overall_one(blocks):
    ratios = explicit_ratios(blocks, BY_NAME, 0.437)
    for name, _ in named_matrices(blocks):
        assert ratios[name] == (0.613 if "mlp" in name else 0.2 if "layers.0." in name else 0.437), name


def test_high_ratios_may_empty_a_column_block():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    method, ratios = get_method("sparsegpt", block_size=1), BlockRatios((0.99, 0.9, 0.97))
    prune(model, WINDOWS, PruneSpec(method, Unstructured(0.5), allocation=ratios), blocks=blocks)
    assert sparsity(blocks) == pytest.approx(sum(ratios.values) / 3, abs=1e-4)


def rounded_thirds(blocks):
    """How many weights each matrix loses where each is to lose a third."""
    ratios = whole_counts(blocks, {name: 1 / 3 for name, _ in named_matrices(blocks)})
    return [ratios[name] * matrix.weights for name, matrix in named_matrices(blocks)]


def test_every_matrix_loses_a_whole_number_of_weights(blocks):
    assert all(abs(count - round(count)) < 1e-9 for count in rounded_thirds(blocks))


def test_rounding_in_every_matrix_keeps_the_overall_ratio_exact(blocks):
    total = sum(matrix.weights for _, matrix in named_matrices(blocks))
    assert abs(sum(rounded_thirds(blocks)) - total / 3) < 1


def test_as_many_ratios_as_blocks_are_needed(blocks):
    with pytest.raises(ModelError, match="has 2 ratios, but the model has 3 blocks"):
        explicit_ratios(blocks, BlockRatios((0.5, 0.5)), 0.5)


def test_an_expression_that_decides_no_ratio_is_refused(blocks):
    with pytest.raises(ModelError, match=r"attn_proj decides no layer's ratio; names are like model\.layers\.0"):
        explicit_ratios(blocks, NamedRatios((("attn_proj", 0.5),)), 0.5)


@pytest.mark.parametrize("allocation", [BlockRatios((0.5, 1.0, 0.5)), NamedRatios((("mlp", -0.1),))])
def test_a_ratio_out_of_range_is_refused(allocation, blocks):
    with pytest.raises(ModelError, match=r"is outside \[0, 1\)"):
        explicit_ratios(blocks, allocation, 0.5)


def test_an_allocation_of_n_of_m_is_refused():
    with pytest.raises(ModelError, match="only unstructured sparsity can be allocated"):
        prune(tiny_llama(), WINDOWS, PruneSpec(get_method("wanda"), NofM(2, 4), allocation=Owl()))


def test_explicit_ratios_are_checked_before_anything_is_observed(blocks):
    with pytest.raises(ModelError, match="has 2 ratios"):
        check_pattern(blocks, Unstructured(0.5), BlockRatios((0.5, 0.5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"outlier_threshold": 0.0}, "is not positive"), ({"max_deviation": 0.5}, r"outside \[0, 0.5\)")],
)
def test_an_option_of_owl_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Owl(**options)


def test_owl_observes_each_block_once(blocks, statistics):
    calls = []

    def watched():
        calls.append(1)
        return [(block, statistics) for block in blocks]

    ratios = Owl().ratios(blocks, 0.5, watched)
    assert calls == [1] and set(ratios) == {name for name, _ in named_matrices(blocks)}
