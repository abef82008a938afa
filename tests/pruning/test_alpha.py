"""AlphaPruning against a rewrite in NumPy, and what it does with blocks that have no spectrum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.errors import ModelError
from statprune.model.coverage import sparsity
from statprune.model.loading import load_model
from statprune.pruning.allocation import check_pattern
from statprune.pruning.alpha import Alpha, eigenvalues, mean_exponent, relative_ratios, scaled_ratios, tail_exponent
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.testing import check_allocation
from statprune.walk.discover import find_blocks
from tests.helpers.families import tiny_model
from tests.helpers.loading import saved
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 16, lowest=0)


def exponent_by_loops(weight, bins=100):
    """Hill's exponent of a matrix, each candidate's distance computed value by value."""
    values = sorted(value**2 for value in np.linalg.svd(weight, compute_uv=False))
    values = [value for value in values if value > 1e-10 * values[-1]]
    low, high = math.log10(values[0]), math.log10(values[-1])
    counts = [0] * bins
    for value in values:
        counts[min(int((math.log10(value) - low) / (high - low) * bins), bins - 1)] += 1
    peak = 10 ** (low + counts.index(max(counts)) * (high - low) / bins)
    found = []
    for first, smallest in enumerate(values[:-1]):
        if not 0.95 * peak <= smallest <= 1.5 * peak:
            continue
        tail = values[first:]
        exponent = 1 + len(tail) / sum(math.log(value / smallest) for value in tail)
        distances = [abs(1 - (v / smallest) ** (1 - exponent) - i / len(tail)) for i, v in enumerate(tail)]
        found.append((max(distances), exponent))
    return min(found)[1]


def matrix(rows, columns, power, seed):
    """A matrix whose columns' sizes follow a power law."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.arange(1.0, columns + 1) ** -power


@pytest.mark.parametrize("power", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50)])
def test_the_exponent_is_the_papers(shape, power):
    weight = matrix(*shape, power, 1)
    wanted = exponent_by_loops(weight.double().numpy())
    assert tail_exponent(eigenvalues(weight), 100) == pytest.approx(wanted, rel=1e-6)
    assert tail_exponent(eigenvalues(weight * 1e-25), 100) == pytest.approx(wanted, rel=1e-4)


def test_a_power_law_has_its_exponent():
    values = np.sort((1 - np.random.default_rng(0).random(2_000)) ** (-1 / 1.5))  # density ∝ λ^(−2.5)
    assert tail_exponent(values, 100) == pytest.approx(2.5, abs=0.2)


def test_a_heavier_tail_has_a_smaller_exponent():
    light, heavy = (tail_exponent(eigenvalues(matrix(60, 60, power, 0)), 100) for power in (0.0, 1.0))
    assert heavy < light


@pytest.mark.parametrize("weight", [torch.zeros(4, 6), torch.ones(1, 6), torch.eye(5), torch.ones(4, 6)], ids=str)
def test_a_matrix_without_a_tail_has_no_exponent(weight):
    assert tail_exponent(eigenvalues(weight), 100) is None


def test_singular_matrices_have_the_exponent_of_what_is_not_zero():
    weight = matrix(40, 30, 0.5, 2)
    doubled = torch.cat([weight, weight], 1)  # half of its eigenvalues are zero
    values = tail_exponent(eigenvalues(doubled), 100), tail_exponent(eigenvalues(weight), 100)
    assert values[0] == pytest.approx(values[1])


def test_blocks_are_mapped_linearly():
    assert relative_ratios({0: 2.0, 1: 4.0, 2: 2.5, 4: None}, 0.2) == pytest.approx({0: 0.8, 1: 1.2, 2: 0.9, 4: 1.0})


@pytest.mark.parametrize("exponents", [{0: 3.0, 1: 3.0}, {0: None, 1: None}, {}])
def test_blocks_that_are_all_alike_have_one_ratio(exponents):
    assert relative_ratios(exponents, 0.5) == dict.fromkeys(exponents, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    relative=st.lists(st.floats(0.05, 1.95), min_size=1, max_size=6),
    counts=st.lists(st.integers(1, 1000), min_size=6, max_size=6),
    ratio=st.floats(0, 0.995),
)
def test_the_mean_is_met_within_the_bounds(relative, counts, ratio):
    weights = dict(enumerate(counts[: len(relative)]))
    found = scaled_ratios(dict(enumerate(relative)), weights, ratio)
    mean = sum(found[index] * weights[index] for index in weights) / sum(weights.values())
    assert mean == pytest.approx(ratio, abs=1e-9)
    assert all(0 <= value <= max(0.99, ratio) + 1e-12 for value in found.values())
    free = [found[index] / relative[index] for index in weights if found[index] < 0.99 - 1e-9]
    assert not free or max(free) == pytest.approx(min(free))


def test_it_keeps_the_rules_of_an_allocation():
    check_allocation(Alpha())
    check_allocation(Alpha(0.9, 7))


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


def test_ratios_are_those_of_the_blocks_means(model):
    blocks = find_blocks(model, WINDOWS)
    ratios = Alpha(0.2).ratios(blocks, 0.6, lambda: pytest.fail("nothing is to be observed"))
    means = [
        sum(exponent_by_loops(matrix.read().double().numpy()) for matrix in block.matrices) / len(block.matrices)
        for block in blocks
    ]
    mapped = [0.8 + 0.4 * (mean - min(means)) / (max(means) - min(means)) for mean in means]
    for block, value in zip(blocks, mapped, strict=True):
        wanted = 0.6 * value / (sum(mapped) / len(mapped))  # all blocks have as many weights
        own = [ratios[block.full_name(matrix)] for matrix in block.matrices]
        assert own == pytest.approx([wanted] * len(own), rel=1e-4)


def test_experts_count_as_one_matrix():
    (block, *_) = find_blocks(tiny_model("MixtralConfig"), WINDOWS)
    by_kind = {}
    for own in block.matrices:
        by_kind.setdefault(own.kind, []).append(exponent_by_loops(own.read().double().numpy()))
    assert {kind: len(values) for kind, values in by_kind.items()}["mlp.experts.down_proj"] == 4
    wanted = np.mean([np.mean(values) for values in by_kind.values()])
    assert mean_exponent(block, 100) == pytest.approx(wanted, rel=1e-4)


def test_the_overall_ratio_is_met():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    result = prune(model, WINDOWS, PruneSpec(get_method("wanda"), Unstructured(0.437), allocation=Alpha()))
    assert sparsity(blocks) == pytest.approx(0.437, abs=1e-4) and result.seconds["allocate"] > 0


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_blocks_that_wait_elsewhere_have_the_same_ratios(offload, tmp_path):
    dense = saved(tiny_llama(), tmp_path / "dense")
    (tmp_path / "files").mkdir()
    found = []
    for where in ("none", offload):
        opened = load_model(str(dense), offload=where, folder=tmp_path / "files")
        found.append(Alpha().ratios(find_blocks(opened, WINDOWS), 0.5, list))
        opened.close()
    assert found[0] == found[1]


def test_the_spectra_are_not_computed_before_they_are_needed(model, monkeypatch):
    monkeypatch.setattr(Alpha, "ratios", lambda *_: pytest.fail("they take long"))
    check_pattern(find_blocks(model, WINDOWS), Unstructured(0.5), Alpha())


def test_weights_that_are_not_finite_are_refused():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    with torch.no_grad():
        blocks[1].matrices[2].stored[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"self_attn\.v_proj of block 1 has no spectrum"):
        Alpha().ratios(blocks, 0.5, list)


@pytest.mark.parametrize("options", [{"deviation": -0.1}, {"deviation": 1.0}, {"bins": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"sparsity.{next(iter(options))}="):
        Alpha(**options)
