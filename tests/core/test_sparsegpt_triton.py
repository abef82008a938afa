"""SparseGPT's Triton kernel against the loop in PyTorch: compiled on a GPU, interpreted without one."""

import pytest
import torch

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.sparsegpt import _solve_block, inverse_factor
from statprune.core.statistics import InputStatistics, StatisticsKind
from tests.helpers.triton import DEVICE, kernels

kernel = kernels("sparsegpt_triton")


@pytest.fixture(autouse=True)
def _the_loop_is_no_kernel(monkeypatch):
    monkeypatch.setattr("statprune.core.sparsegpt.has_kernel", lambda _: False)  # a GPU would compare it with itself


NOFM = [NofM(2, 4), NofM(4, 8), NofM(1, 4)]
PATTERNS = [Unstructured(0.5), *NOFM]


def make(rows, columns, seed=0, dtype=torch.float32):
    """Weights, shape (rows, columns), and the factor of a Gram matrix of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2 * columns, columns, generator=generator, dtype=torch.float64)
    inputs = inputs + inputs.roll(1, dims=1) + 0.3
    factor, _ = inverse_factor(inputs.T @ inputs, 0.01)
    return weight.to(DEVICE, dtype), factor.to(DEVICE, dtype)


def solve(block, factor, pattern):
    """The kernel on what ``_solve_block`` takes."""
    if isinstance(pattern, NofM):
        return kernel.solve_block(block, factor, None, (pattern.keep, pattern.of))
    return kernel.solve_block(block, factor, pattern.select((block / factor.diagonal()).square()), None)


def both(weight, factor, pattern):
    """Mask, block and errors of the loop, and those of the kernel, on copies of ``weight``."""
    results = []
    for solver in (_solve_block, solve):
        block = weight.clone()
        keep, errors = solver(block, factor, pattern)
        results.append((keep, block, errors))
    return results


def check(weight, factor, pattern):
    """The masks are the same, the rest is but for rounding."""
    (expected_keep, expected, expected_errors), (keep, block, errors) = both(weight, factor, pattern)
    assert keep.dtype == torch.bool
    assert torch.equal(keep, expected_keep)
    torch.testing.assert_close(block, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(errors, expected_errors, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (23, 24), (64, 16), (130, 8)])
def test_kernel_matches_the_loop(rows, columns, pattern):
    check(*make(rows, columns), pattern)


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(4, 8)], ids=str)
def test_kernel_takes_columns_that_few_rows_fit_beside(pattern):
    check(*make(3, 136), pattern)


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [(24, NofM(5, 6)), (21, NofM(2, 3)), (1, Unstructured(0.5)), (37, Unstructured(0.3))],
    ids=str,
)
def test_kernel_takes_any_group_and_width(columns, pattern):
    check(*make(5, columns), pattern)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_kernel_takes_float64(pattern):
    check(*make(7, 16, dtype=torch.float64), pattern)


@pytest.mark.long
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_float32_kernel_is_near_the_float64_loop(pattern):
    weight, factor = make(9, 64, seed=1)
    expected = weight.double()
    expected_keep, expected_errors = _solve_block(expected, factor.double(), pattern)
    keep, errors = solve(weight, factor, pattern)
    assert torch.equal(keep, expected_keep)
    torch.testing.assert_close(weight.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(errors.double(), expected_errors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", NOFM, ids=str)
def test_kernel_keeps_the_first_of_equal_scores(pattern):
    columns = 2 * pattern.of
    weight = torch.ones(3, columns, device=DEVICE)
    weight[1] = -0.5
    weight[2] = 0
    keep, _ = solve(weight, torch.eye(columns, device=DEVICE), pattern)
    assert torch.equal(keep, (torch.arange(columns, device=DEVICE) % pattern.of < pattern.keep).expand(3, -1))


@pytest.mark.parametrize("pattern", NOFM, ids=str)
def test_kernel_breaks_ties_as_the_loop_does(pattern):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randint(-2, 3, (20, 32), generator=generator) / 4
    # powers of two, and few of them off the diagonal: what is equal stays so through the updates
    factor = torch.diag(2.0 ** torch.randint(-1, 2, (32,), generator=generator))
    factor += torch.randint(-8, 9, (32, 32), generator=generator).div(8, rounding_mode="trunc").triu(1) / 2
    score = (weight / factor.diagonal()).square()
    assert (score[:, :-1] == score[:, 1:]).any(dim=1).all()
    check(weight.to(DEVICE), factor.to(DEVICE), pattern)


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_kernel_takes_a_view_and_leaves_its_surroundings_alone(pattern, by_columns):
    weight, factor = make(6, 24)
    around = weight.T.contiguous().T if by_columns else weight
    expected = around.clone()
    expected_keep, expected_errors = _solve_block(expected[:, 8:16], factor[8:16, 8:16], pattern)
    keep, errors = solve(around[:, 8:16], factor[8:16, 8:16], pattern)
    assert torch.equal(keep, expected_keep)
    torch.testing.assert_close(around, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(errors, expected_errors, rtol=1e-5, atol=1e-6)


def test_kernel_takes_a_mask_and_a_factor_of_any_strides():
    weight, factor = make(6, 24)
    wide = torch.rand(6, 48, device=DEVICE) < 0.5
    expected = weight.clone()
    _, expected_errors = kernel.solve_block(expected, factor, wide[:, ::2].contiguous(), None)
    keep, errors = kernel.solve_block(weight, factor.T.contiguous().T, wide[:, ::2], None)
    assert torch.equal(keep, wide[:, ::2])
    assert torch.equal(weight, expected)
    assert torch.equal(errors, expected_errors)


def test_kernel_refuses_neither_a_mask_nor_n_of_m():
    with pytest.raises(ValueError, match="either"):
        kernel.solve_block(*make(2, 6), None, None)


def test_kernel_refuses_both_a_mask_and_n_of_m():
    weight, factor = make(2, 6)
    with pytest.raises(ValueError, match="either"):
        kernel.solve_block(weight, factor, torch.ones_like(weight, dtype=torch.bool), (2, 4))


def test_kernel_refuses_columns_that_groups_do_not_divide():
    with pytest.raises(ValueError, match="divisible by M=4"):
        kernel.solve_block(*make(2, 6), None, (2, 4))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_compiled_kernel_matches_the_loop_at_full_size(pattern):
    (expected_keep, expected, expected_errors), (keep, block, errors) = both(*make(4096, 128), pattern)
    same = (keep == expected_keep).all(1)  # of 131,072 groups, rounding may exchange two scores of a few
    assert same.float().mean() >= 0.99
    torch.testing.assert_close(block[same], expected[same], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(errors[same], expected_errors[same], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)], ids=str)
def test_the_method_gives_the_same_by_kernel_and_loop(pattern, monkeypatch):
    weight, _ = make(6, 40)
    statistics = InputStatistics(40, StatisticsKind.GRAM, device=DEVICE)
    statistics.update(torch.randn(80, 40, generator=torch.Generator().manual_seed(3)).to(DEVICE))
    method = get_method("sparsegpt", block_size=16)
    results = []
    for has_kernel in (True, False):
        monkeypatch.setattr("statprune.core.sparsegpt.has_kernel", lambda _, has_kernel=has_kernel: has_kernel)
        results.append(method.solve(weight, statistics, pattern))
    by_kernel, by_loop = results
    assert torch.equal(by_kernel.keep, by_loop.keep) and by_kernel.keep.float().mean().item() == pytest.approx(0.5)
    torch.testing.assert_close(by_kernel.weight, by_loop.weight, rtol=1e-5, atol=1e-6)
