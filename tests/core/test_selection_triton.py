"""Triton's kernels that select the smallest scores against PyTorch's way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.core import patterns
from statprune.core.patterns import _break_ties, _kth_smallest
from tests.helpers.triton import DEVICE, kernels

kernel = kernels("selection_triton")


def wanted(score, count):
    """As ``smallest`` has it without a kernel."""
    return _break_ties(score, _kth_smallest(score.cpu(), count).to(score.device), count)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (20, 64), (5, 1025), (2, 3000)])
@pytest.mark.parametrize("share", [0.01, 0.5, 1])
def test_rows_lose_their_smallest(rows, columns, share):
    score = torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns)).to(DEVICE)
    count = max(1, int(share * columns))
    assert torch.equal(kernel.smallest_of_rows(score, count), wanted(score, count))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 6), st.floats(0, 1), st.integers(0, 2**31))
def test_ties_are_broken_as_without_the_kernel(rows, columns, values, share, seed):
    generator = torch.Generator().manual_seed(seed)
    score = (torch.randint(-values, values + 1, (rows, columns), generator=generator) / 2).to(DEVICE)
    score[:, ::3] *= -1  # zeros of both signs are equal
    count = max(1, int(share * columns))
    assert torch.equal(kernel.smallest_of_rows(score, count), wanted(score, count))


def test_rows_of_any_strides_and_extreme_scores():
    largest = torch.finfo(torch.float32).max
    row = torch.tensor([0.0, -0.0, largest, -largest, 1e-45, -1e-45, torch.inf, -torch.inf, 3.0, 3.0], device=DEVICE)
    score = torch.stack([row, row.flip(0), row.roll(3)])
    for view in (score, score[:, ::2], score.T, score[:, 1:7]):
        for count in {1, 2, view.shape[1] // 2, view.shape[1]}:
            assert torch.equal(kernel.smallest_of_rows(view, count), wanted(view.contiguous(), count))


@pytest.mark.parametrize("size", [1, 100, 4096, 9001])
@pytest.mark.parametrize("values", [3, 10**6])
def test_a_long_row_loses_its_smallest(size, values):
    generator = torch.Generator().manual_seed(size)
    score = (torch.randint(0, values, (1, size), generator=generator) / 8).to(DEVICE)
    for count in {1, max(1, size // 2), size}:
        threshold = _kth_smallest(score, count)
        assert torch.equal(kernel.smallest_below(score, threshold, count), wanted(score, count))


def test_the_kernel_for_rows_or_for_one_long_row_is_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(patterns, "has_kernel", lambda _: True)
    for name in ("smallest_of_rows", "smallest_below"):
        own = getattr(kernel, name)
        monkeypatch.setattr(kernel, name, lambda *args, own=own, name=name: taken.append(name) or own(*args))
    monkeypatch.setattr(kernel, "LONGEST", 8)
    for shape in ((3, 8), (1, 9), (2, 9)):
        score = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        assert torch.equal(patterns.smallest(score, 4), wanted(score, 4))
    patterns.smallest(torch.randn(3, 8, dtype=torch.float64, device=DEVICE), 4)  # kernels hold float32
    assert taken == ["smallest_of_rows", "smallest_below"]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@pytest.mark.parametrize(("rows", "columns"), [(4096, 11008), (64, 28672), (16, 65536)])
def test_compiled_kernel_selects_at_full_size(rows, columns):
    score = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).abs().half().float().to(DEVICE)
    assert torch.equal(
        kernel.smallest_of_rows(score, columns // 2),
        _break_ties(score, score.sort(1).values[:, columns // 2 - 1 : columns // 2], columns // 2),
    )
