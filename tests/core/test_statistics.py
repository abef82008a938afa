"""Streaming statistics against sums written out here, whatever the batches and processes."""

import math

import pytest
import torch

from statprune.core.statistics import STRIP, InputStatistics, StatisticsKind
from tests.helpers.matrices import random_matrix


def gram_statistics(channels):
    return InputStatistics(channels, StatisticsKind.GRAM, dtype=torch.float64)


def test_moments_match_naive_sums():
    _, x, statistics = random_matrix()
    n = len(x)
    for j in range(x.shape[1]):
        mean = sum(x[:, j].tolist()) / n
        assert statistics.mean[j].item() == pytest.approx(mean)
        assert statistics.variance[j].item() == pytest.approx(sum((v - mean) ** 2 for v in x[:, j].tolist()) / n)
        assert statistics.norm[j].item() == pytest.approx(math.sqrt(sum(v * v for v in x[:, j].tolist())))


def test_the_gram_matrix_matches_the_product_of_all_inputs():
    _, x, statistics = random_matrix()
    assert torch.allclose(statistics.gram, x.T @ x)


def test_variance_survives_a_large_mean_in_float32():
    x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(1)) * 1e-2 + 100
    statistics = InputStatistics(3)
    for batch in x.split(512):
        statistics.update(batch)
    assert torch.allclose(statistics.variance, x.double().var(0, correction=0), rtol=1e-3)


def test_sampled_rows_are_the_tokens_asked_for():
    x = torch.arange(40.0).view(20, 2)
    statistics = InputStatistics(2, sample_index=torch.tensor([0, 6, 7, 19]))
    for batch in x.split(7):
        statistics.update(batch)
    assert torch.equal(statistics.rows, x[[0, 6, 7, 19]])


@pytest.fixture
def wide():
    """Inputs of more channels than one strip of the Gram matrix has, (windows, tokens, channels)."""
    return torch.randn(3, 20, 1100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_wide_gram_matrix_is_whole_although_half_of_it_is_computed(wide):
    statistics = gram_statistics(1100)
    statistics.update(wide[:1])
    assert torch.allclose(statistics.gram, wide[0].T @ wide[0])


def test_a_wide_gram_matrix_that_was_read_goes_on_growing(wide):
    statistics = gram_statistics(1100)
    statistics.update(wide[:1])
    assert statistics.gram.shape == (1100, 1100)
    statistics.update(wide[1:])
    assert torch.allclose(statistics.gram, wide.flatten(0, 1).T @ wide.flatten(0, 1))


def test_pooled_wide_gram_matrices_are_their_whole_sum(wide):
    statistics, other = gram_statistics(1100), gram_statistics(1100)
    statistics.update(wide)
    other.update(wide[:2])
    pooled = InputStatistics.pooled([statistics, other])
    assert torch.allclose(pooled.gram, statistics.gram + other.gram)


def test_a_process_that_saw_no_token_of_an_expert_gets_the_statistics_of_the_others(monkeypatch):
    x = torch.randn(20, 600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen, empty = gram_statistics(600), gram_statistics(600)
    seen.update(x)
    strips = torch.zeros(600, 600, dtype=torch.float64)  # what the other process has: on and above the diagonal only
    for first in range(0, 600, STRIP):
        strips[first : first + STRIP, first:] = seen.gram[first : first + STRIP, first:]
    theirs = iter([torch.tensor([20, 0]), torch.stack([seen.mean, seen.variance * 20]), torch.zeros(0, 600).double()])
    monkeypatch.setattr("statprune.core.statistics.gathered_tensors", lambda mine: [mine, next(theirs)])
    monkeypatch.setattr("statprune.core.statistics.sum_over_processes", lambda gram: gram.add_(strips))
    empty.merge_processes()
    assert empty.count == 20 and torch.allclose(empty.gram, x.T @ x) and torch.allclose(empty.norm, seen.norm)


@pytest.fixture(scope="module")
def whole_and_single():
    """Statistics of the same windows, seen in one batch and one by one."""
    windows = torch.randn(6, 50, 9, generator=torch.Generator().manual_seed(2)) * 3 + 5
    whole, single = InputStatistics(9, StatisticsKind.GRAM), InputStatistics(9, StatisticsKind.GRAM)
    whole.update(windows)
    for window in windows:
        single.update(window[None])
    return whole, single


def test_the_gram_matrix_does_not_depend_on_how_windows_are_batched(whole_and_single):
    """One mask entry that rounding flips early on moves a small model's perplexity by half a percent."""
    whole, single = whole_and_single
    assert torch.equal(whole.gram, single.gram)


@pytest.mark.parametrize("name", ["mean", "variance", "norm"])
def test_moments_do_not_depend_on_how_windows_are_batched(name, whole_and_single):
    whole, single = whole_and_single
    assert torch.allclose(getattr(whole, name), getattr(single, name), rtol=1e-13, atol=0)
