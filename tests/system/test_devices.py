"""Float32 is float32, whatever the caller has told PyTorch."""

import pytest
import torch

from statprune import calibration_windows, load_model, prune, statistics, window_losses
from statprune.system.devices import full_float32

LOWER = ("high", "medium")


@pytest.fixture(params=LOWER)
def lower_precision(request):
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def precisions():
    """What PyTorch multiplies float32 matrices in, by backend."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


def test_float32_is_multiplied_in_full_and_the_callers_setting_comes_back(lower_precision):
    before = precisions()
    with pytest.raises(ZeroDivisionError), full_float32():
        assert torch.get_float32_matmul_precision() == "highest" and set(precisions()) <= {"ieee", "none"}
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == lower_precision and precisions() == before


def test_the_setting_of_one_backend_comes_back():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_float32():
            assert torch.backends.cuda.matmul.fp32_precision in ("ieee", "none")
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_pruning_statistics_and_losses_are_taken_in_full(lower_precision, tiny_folder):
    loaded = load_model(str(tiny_folder))
    windows = calibration_windows(loaded.tokenizer, samples=2, seq_len=16)
    seen = []
    loaded.model.model.layers[0].register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    window_losses(loaded.model, windows.ids)
    statistics(loaded, windows=windows.ids)
    prune(loaded, "wanda", 0.5, windows=windows.ids)
    assert len(seen) >= 3 and set(seen) == {"highest"}
    assert torch.get_float32_matmul_precision() == lower_precision
