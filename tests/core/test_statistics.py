"""Streaming statistics against sums written out here, whatever the batches and processes."""

import math

import pytest
import torch

from statprune.core.gram import STRIP
from statprune.core.statistics import CHUNK_VALUES, InputStatistics, StatisticsKind
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


def small(kind=StatisticsKind.GRAM, sample=None, tokens=10, seed=3):
    """Inputs of three channels and their statistics in float32, with these rows sampled."""
    x = torch.randn(tokens, 3, generator=torch.Generator().manual_seed(seed))
    statistics = InputStatistics(3, kind, None if sample is None else torch.tensor(sample))
    statistics.update(x)
    return x, statistics


def test_statistics_of_no_kind_count_tokens_and_sample_rows():
    statistics = InputStatistics(2, StatisticsKind.NONE, torch.tensor([0, 5, 6]))
    x = torch.arange(14.0).view(7, 2)
    for batch in x.split(3):
        statistics.update(batch)
    assert statistics.count == 7 == statistics.own_count and torch.equal(statistics.rows, x[[0, 5, 6]])
    assert statistics.mean.tolist() == [0, 0] and not statistics.is_pooled


def test_a_batch_without_tokens_changes_nothing():
    x, statistics = small(sample=[0, 9])
    statistics.update(x[:0])
    assert statistics.count == 10 and statistics.mean.isfinite().all() and torch.equal(statistics.rows, x[[0, 9]])


def test_what_was_not_collected_is_not_there():
    _, statistics = small(StatisticsKind.MOMENTS)
    assert statistics.rows.shape == (0, 3) and statistics.rows.dtype == torch.float32
    with pytest.raises(RuntimeError, match="hold no Gram matrix"):
        _ = statistics.gram
    empty = InputStatistics(3)
    assert empty.variance.tolist() == [0, 0, 0] and empty.norm.tolist() == [0, 0, 0]


def test_one_token_has_a_mean_and_no_variance():
    x, statistics = small(tokens=1)
    assert torch.allclose(statistics.mean, x[0].double()) and statistics.variance.tolist() == [0, 0, 0]


def test_chunks_of_tokens_change_nothing_but_rounding(monkeypatch):
    _, whole = small(tokens=50)
    for values in (1, 9):  # the first: less than one token
        monkeypatch.setitem(CHUNK_VALUES, "cpu", values)
        _, chunked = small(tokens=50)
        assert chunked.count == 50 and torch.allclose(chunked.variance, whole.variance, rtol=1e-12)
        assert torch.allclose(chunked.mean, whole.mean, rtol=1e-12)


def test_gram_matrices_and_rows_have_the_precision_asked_for():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    statistics = InputStatistics(3, StatisticsKind.GRAM, torch.arange(2))
    statistics.update(x)
    assert torch.equal(statistics.gram, (x.float().T @ x.float()).double())
    assert statistics.rows.dtype == torch.float32 and statistics.gram.dtype == torch.float64


def test_pooled_statistics_are_those_of_all_tokens():
    x, first = small(sample=[0, 1])
    y, second = small(sample=[4], tokens=6, seed=5)
    pool = InputStatistics.pooled([first, InputStatistics(3, StatisticsKind.GRAM), second])
    both = torch.cat([x, y])
    assert pool.is_pooled and pool.count == 16 and torch.equal(pool.rows, torch.cat([x[:2], y[4:5]]))
    assert torch.allclose(pool.mean, both.double().mean(0)) and pool.kind is StatisticsKind.GRAM
    assert torch.allclose(pool.variance, both.double().var(0, correction=0))
    assert torch.allclose(pool.gram, both.double().T @ both.double(), rtol=1e-6)
    assert torch.allclose(first.mean, x.double().mean(0)) and first.count == 10 and not first.is_pooled


def test_pooled_moments_need_no_gram_matrix():
    x, statistics = small(StatisticsKind.MOMENTS)
    assert torch.allclose(InputStatistics.pooled([statistics, statistics]).mean, x.double().mean(0))


@pytest.mark.parametrize("kind", StatisticsKind)
def test_where_no_token_was_seen_all_channels_are_alike(kind):
    nothing = InputStatistics.uninformed(3, kind, "cpu")
    assert nothing.count == 0 and nothing.variance.tolist() == nothing.norm.tolist() == [1, 1, 1]
    assert nothing.mean.tolist() == [0, 0, 0] and len(nothing.rows) == 0
    if kind is StatisticsKind.GRAM:
        assert torch.equal(nothing.gram, torch.eye(3, dtype=torch.float64))


def test_shared_statistics_are_the_same_but_for_the_matrixs_own_count():
    _, statistics = small()
    shared = statistics.shared_by(4)
    assert (shared.own_count, shared.count, statistics.own_count) == (4, 10, 10)
    assert shared.mean is statistics.mean and statistics.shared_by(0).own_count == 0


def test_what_is_derived_is_computed_once_for_each_key():
    _, statistics = small()
    calls = []
    for key in ("a", "a", "b"):
        assert statistics.once(key, lambda key=key: calls.append(key) or key * 2) == key * 2
    assert calls == ["a", "b"]


def gathering(monkeypatch, others):
    """Another process answers with these, one for each question."""
    theirs, asked = iter(others), []

    def gathered(mine):
        asked.append(mine)
        return [mine, next(theirs)]

    monkeypatch.setattr("statprune.core.statistics.gathered_tensors", gathered)
    monkeypatch.setattr("statprune.core.statistics.sum_over_processes", lambda gram: gram.mul_(2))
    return asked


@pytest.mark.parametrize(("mine", "theirs"), [([0, 3, 8], [1]), ([2], [0, 5]), (None, [7])])
def test_processes_are_merged_with_their_tokens_and_rows(monkeypatch, mine, theirs):
    x, statistics = small(StatisticsKind.MOMENTS, mine)
    y, other = small(StatisticsKind.MOMENTS, theirs, tokens=8, seed=6)
    most = max(len(mine or []), len(theirs))
    padded = torch.zeros(most, 3)
    padded[: len(theirs)] = other.rows
    answers = [torch.tensor([8, len(theirs)]), torch.stack([other.mean, other.variance * 8]), padded]
    asked = gathering(monkeypatch, answers)
    statistics.merge_processes()
    both = torch.cat([x, y]).double()
    assert statistics.count == 18 and torch.allclose(statistics.mean, both.mean(0))
    assert torch.allclose(statistics.variance, both.var(0, correction=0))
    assert torch.equal(statistics.rows, torch.cat([x[mine or []], y[theirs]]))
    assert asked[0].tolist() == [10, len(mine or [])] and asked[2].shape == (most, 3)


def test_kinds_include_those_before_them():
    assert list(StatisticsKind) == [0, 1, 2] and StatisticsKind.NONE < StatisticsKind.MOMENTS < StatisticsKind.GRAM
