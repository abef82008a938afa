"""A caller's default device, which notebooks set to the GPU, changes nothing: here it is one that holds no numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from statprune import calibration_windows, prune, window_losses
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.windows import random_windows

WINDOWS = random_windows(6, 16, lowest=0)


@contextmanager
def default_device(device: str | None) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("options", [{"compensation": "energy"}, {"allocation": "owl"}, {"propagation": "sequential"}])
@pytest.mark.parametrize("method", ["cvr", "sparsegpt", "admm"])
def test_a_default_device_changes_no_bit(method, options):
    models = []
    for device in ("meta", None):
        models.append(tiny_llama())
        with default_device(device):
            prune(models[-1], method, 0.5, windows=WINDOWS, **options)
    for own, expected in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(own, expected)


def test_a_default_device_changes_no_window_and_no_loss():
    results, tokenizer, model = [], tiny_tokenizer(), tiny_llama()
    for device in ("meta", None):
        with default_device(device):
            windows = calibration_windows(tokenizer, samples=3, seq_len=16).ids
            results.append((windows, window_losses(model, WINDOWS)))
    for own, expected in zip(*results, strict=True):
        assert torch.equal(own, expected)
