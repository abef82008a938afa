"""Statistics at their edges: chunks, one member, empty members, processes without rows of their own."""

import pytest
import torch

from statprune.core import gram, row_chunks, statistics
from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind


def inputs(tokens=10):
    return torch.randn(tokens, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("values", "lengths"), [(9, [3, 3, 3, 1]), (1, [1] * 10), (2**18, [10])])
def test_chunks_hold_as_many_tokens_as_fit(monkeypatch, values, lengths):
    monkeypatch.setitem(statistics.CHUNK_VALUES, "cpu", values)
    seen = []
    monkeypatch.setattr(InputStatistics, "_merge", lambda self, count, mean, squares: seen.append((count, mean)))
    x = inputs()
    InputStatistics(3).update(x)
    assert [count for count, _ in seen] == lengths
    assert all(map(torch.equal, [mean for _, mean in seen], [chunk.double().mean(0) for chunk in x.split(lengths)]))


def test_the_sizes_of_chunks_are_those_of_recorded_runs():
    """Others add in another order, and the last bits differ."""
    assert statistics.CHUNK_VALUES == {"cpu": 262144, "cuda": 16777216} and gram.STRIP == 512
    assert row_chunks.CHUNK_ENTRIES == {"cpu": 1048576, "cuda": 67108864}


def test_dense_statistics_begin_with_no_block_and_share_none():
    one, other = DenseStatistics(StatisticsKind.GRAM), DenseStatistics(StatisticsKind.GRAM)
    assert one.blocks == {} and one.blocks is not other.blocks


def test_one_member_and_empty_ones_can_be_pooled():
    member = InputStatistics(3, StatisticsKind.GRAM, torch.arange(2))
    member.update(inputs())
    for members in ([member], [InputStatistics(3, StatisticsKind.GRAM), member]):
        pool = InputStatistics.pooled(members)
        assert pool.count == 10 and torch.equal(pool.rows, inputs()[:2])
        for name in ("mean", "variance", "norm", "gram"):
            assert torch.allclose(getattr(pool, name), getattr(member, name), rtol=1e-15)


def test_processes_exchange_rows_of_one_precision_and_count_in_whole_numbers(monkeypatch):
    own = InputStatistics(3, StatisticsKind.MOMENTS, torch.arange(2))
    own.update(inputs().bfloat16())
    answers = iter([torch.tensor([0, 0]), torch.zeros(2, 3).double(), torch.zeros(2, 3)])
    asked = []
    monkeypatch.setattr(statistics, "gathered_tensors", lambda mine: asked.append(mine) or [mine, next(answers)])
    own.merge_processes()
    assert asked[2].dtype == torch.float32 and own.rows.shape == (2, 3) and type(own.count) is int
    assert asked[1].dtype == torch.float64 and own.count == 10
