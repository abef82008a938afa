"""Triton's kernels of the input statistics against float64 sums: compiled on a GPU, interpreted without one."""

import pytest
import torch

from statprune.core import statistics as statistics_module
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.triton import DEVICE, kernels

kernel = kernels("statistics_triton")
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def inputs(*shape, dtype=torch.float32, seed=0):
    """Channels with means and scales of their own, one of them constant."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    channels = shape[-1]
    values = values * torch.rand(channels, generator=generator) + 3 * torch.randn(channels, generator=generator)
    values[..., 0] = 0.1
    return values.to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (7, 130), (515, 20), (1030, 3)])
def test_shifted_sums_are_those_of_float64(rows, channels, dtype):
    values = inputs(rows, channels, dtype=dtype)
    shift = values[rows // 2].double() + 0.01
    total, squares = kernel.shifted_sums(values, shift)
    wanted = values.double() - shift
    torch.testing.assert_close(total, wanted.sum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(squares, wanted.square().sum(0), rtol=1e-12, atol=1e-12)


def test_shifted_sums_take_rows_of_any_strides():
    values = inputs(40, 24)
    shift = torch.zeros(12, dtype=torch.float64, device=DEVICE)
    for view in (values[::2, :12], values[:, ::2], values.T[:, :12]):
        total, squares = kernel.shifted_sums(view, shift)
        torch.testing.assert_close(total, view.double().sum(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(squares, view.double().square().sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_moments_by_the_kernel_are_those_without_it(monkeypatch, dtype):
    values = inputs(6, 50, 70, dtype=dtype)
    found = []
    for has_kernel in (True, False):
        monkeypatch.setattr(statistics_module, "has_kernel", lambda _, has_kernel=has_kernel: has_kernel)
        own = InputStatistics(70, StatisticsKind.MOMENTS, device=DEVICE)
        for batch in values.split([1, 2, 3]):
            own.update(batch)
        found.append(own)
    by_kernel, without = found
    assert by_kernel.count == without.count == 300
    torch.testing.assert_close(by_kernel.mean, without.mean, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(by_kernel.variance, without.variance, rtol=1e-12, atol=1e-13)
    assert by_kernel.variance[0] == 0  # a channel that never changes has none


def test_a_large_mean_or_a_first_token_unlike_the_others_loses_nothing_of_the_variance(monkeypatch):
    monkeypatch.setattr(statistics_module, "has_kernel", lambda _: True)
    values = inputs(4, 64, 8, dtype=torch.float64) + 1e6
    values[0, 0] = -1e7
    own = InputStatistics(8, StatisticsKind.MOMENTS, device=DEVICE)
    for batch in values.split(2):
        own.update(batch)
    rows = values.view(-1, 8)
    torch.testing.assert_close(own.mean, rows.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(own.variance, rows.var(0, correction=0), rtol=1e-10, atol=0)
