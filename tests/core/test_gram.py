"""Gram matrices: on a GPU, products of half-precision inputs come from tensor cores and lose no more than before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statprune.core.gram import STRIP, GramPrecision, add_products, mirror, rounded_to_tf32
from tests.helpers.triton import DEVICE, kernels

kernel = kernels("gram_triton")

GPU = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")


def inputs(windows, tokens, channels, dtype, device="cpu"):
    """Channels of very different scales and means, as language models have them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(windows, tokens, channels, generator=generator)
    values = values * (3 * torch.rand(channels, generator=generator).pow(3) + 0.02)
    return (values + 0.1 * torch.randn(channels, generator=generator)).to(device, dtype)


def gram_of(values, dtype=torch.float32, precision=GramPrecision.float32):
    """The whole matrix."""
    gram = torch.zeros(values.shape[2], values.shape[2], dtype=torch.float64, device=values.device)
    add_products(gram, values, dtype, precision)
    mirror(gram)
    return gram


def exact(values):
    """In float64 throughout."""
    rows = values.double().flatten(0, 1)
    return rows.T @ rows


@pytest.mark.parametrize("channels", [1, 5, STRIP + 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_strips_make_the_whole_matrix(channels, dtype):
    values = inputs(2, 10, channels, dtype)
    torch.testing.assert_close(gram_of(values, torch.float64), exact(values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("windows", "tokens", "channels"), [(1, 1, 1), (2, 70, 20), (3, 130, kernel.TILE + 5)])
def test_the_kernel_adds_every_window(windows, tokens, channels):
    values = inputs(windows, tokens, channels, torch.float16, DEVICE)
    gram = torch.ones(channels, channels, dtype=torch.float64, device=DEVICE)
    kernel.add_half_products(gram, values)
    wanted = (exact(values) + 1).triu()
    assert (gram.triu() - wanted).norm() <= 1e-6 * wanted.norm()


def test_the_kernel_takes_inputs_of_any_strides():
    values = inputs(4, 40, 30, torch.float16, DEVICE)
    for view in (values[::2], values[:, ::3], values[..., 5:21], values[..., ::2], values[:, :, :1]):
        gram = torch.zeros(view.shape[2], view.shape[2], dtype=torch.float64, device=DEVICE)
        kernel.add_half_products(gram, view)
        wanted = exact(view).triu()
        assert (gram.triu() - wanted).norm() <= 1e-6 * wanted.norm()


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("tokens", "channels"), [(2048, 4096), (2048, 512), (2048, 1088), (1031, 96), (5, 8)])
def test_tensor_cores_lose_no_more_than_float32_products_of_a_window(tokens, channels, dtype):
    values = inputs(3, tokens, channels, dtype, "cuda")
    wanted = exact(values)
    before = torch.zeros_like(wanted)
    for window in values:
        before += window.float().T @ window.float()
    own = gram_of(values)
    error, error_before = ((found - wanted).norm() / wanted.norm() for found in (own, before))
    assert error <= max(error_before, 2.0**-21), f"{error:.3g} beside {error_before:.3g}"
    assert torch.equal(own, own.T)


@pytest.mark.gpu
@GPU
def test_float32_inputs_are_never_multiplied_in_less():
    values = inputs(2, 512, 256, torch.float32, "cuda")
    wanted = exact(values)
    assert (gram_of(values) - wanted).norm() < 2e-6 * wanted.norm()


@pytest.mark.gpu
@GPU
def test_batches_of_windows_make_the_same_sum():
    values = inputs(5, 300, 200, torch.bfloat16, "cuda")
    gram = torch.zeros(200, 200, dtype=torch.float64, device="cuda")
    for part in values.split([1, 3, 1]):
        add_products(gram, part, torch.float32)
    mirror(gram)
    assert torch.equal(gram, gram_of(values))


def naively_rounded(values):
    """To 11 significant bits, ties away from zero, in float64."""
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp(torch.sign(mantissa) * torch.floor(mantissa.abs() * 2**11 + 0.5) / 2**11, exponent)


@given(st.lists(st.floats(width=32, allow_subnormal=False, min_value=-(2.0**126), max_value=2.0**126), min_size=1))
def test_tf32_is_the_nearest_number_with_ten_bits_of_mantissa(numbers):
    values = torch.tensor(numbers, dtype=torch.float32)
    assert torch.equal(rounded_to_tf32(values).double(), naively_rounded(values))


def test_rounding_to_tf32_leaves_what_is_not_finite():
    bits = torch.tensor([0x7FFFFFFF, 0x7F800000, -0x800000, 0x7F800001], dtype=torch.int32)  # NaN, inf, -inf, NaN
    rounded = rounded_to_tf32(bits.view(torch.float32))
    assert rounded.isnan().tolist() == [True, False, False, True]
    assert rounded[1:3].tolist() == [float("inf"), float("-inf")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def test_tf32_multiplies_rounded_inputs_and_adds_in_float32(device):
    values = inputs(3, 200, STRIP + 3, torch.float32, device)
    own = gram_of(values, precision=GramPrecision.tf32)
    wanted = exact(naively_rounded(values))
    # tensor cores truncate what they add
    assert (own - wanted).norm() <= (1e-6 if device == "cpu" else 4e-6) * wanted.norm()
    assert 1e-5 * wanted.norm() < (own - exact(values)).norm() < 2**-10 * wanted.norm()
    assert torch.equal(gram_of(values), gram_of(values.clone()))  # the next one is float32 again
    assert (gram_of(values) - exact(values)).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_numbers_are_numbers_of_tf32(dtype):
    values = inputs(1, 50, 20, dtype).float()
    assert torch.equal(rounded_to_tf32(values), values)
