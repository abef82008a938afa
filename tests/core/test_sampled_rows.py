"""Rows sampled from batches, in one piece of memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statprune.core.sampled_rows import SampledRows


def batches_of(sizes, start=0):
    """Batches of so many rows of three channels; each row has another number."""
    numbers = iter(range(start, start + sum(sizes)))
    return [torch.tensor([[next(numbers)] * 3 for _ in range(size)]).reshape(size, 3).double() for size in sizes]


SIZES = st.lists(st.integers(1, 9), max_size=12)


@given(SIZES, st.integers(0, 60), st.lists(st.integers(0, 4), max_size=3))
def test_rows_come_back_in_their_order_however_many_were_expected(sizes, expected, before):
    parts, batches = batches_of(before, 1000), batches_of(sizes)
    rows = SampledRows(parts)
    for batch in batches:
        rows.append(batch, expected)
    wanted = torch.cat([torch.zeros(0, 3).double(), *parts, *batches])
    assert torch.equal(rows.all(3, torch.float64, torch.device("cpu")), wanted)
    assert torch.equal(torch.cat([torch.zeros(0, 3).double(), *rows.parts]), wanted)


@given(SIZES.filter(bool))
def test_rows_that_are_expected_stay_where_they_are_put(sizes):
    rows = SampledRows()
    places = set()
    for batch in batches_of(sizes):
        rows.append(batch, sum(sizes))
        places.add(rows.all(3, torch.float64, torch.device("cpu")).data_ptr())
    assert len(places) == 1  # not copied, and not put together anew when they are read


@given(SIZES.filter(bool))
def test_room_for_rows_nobody_expected_at_most_doubles(sizes):
    rows = SampledRows()
    for batch in batches_of(sizes):
        rows.append(batch, 0)
    assert rows.parts[0].untyped_storage().nbytes() <= 2 * sum(sizes) * 3 * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rows_have_the_dtype_asked_for_also_where_there_are_none(dtype):
    rows = SampledRows()
    assert rows.all(5, dtype, torch.device("cpu")).shape == (0, 5)
    assert rows.all(5, dtype, torch.device("cpu")).dtype == dtype
    rows.append(torch.ones(2, 5, dtype=torch.bfloat16), 0)
    assert rows.all(5, dtype, torch.device("cpu")).dtype == dtype
