"""Losses of windows against a loop over tokens, and block by block."""

import pytest
import torch

from statprune.evaluation.perplexity import perplexity, window_losses, window_losses_by_block
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


def test_losses_match_a_loop_over_tokens():
    model, windows = tiny_llama(), random_windows(3, 8, lowest=0)
    total = []
    for row in windows:
        with torch.no_grad():
            p = model(row[None]).logits[0].double().softmax(-1)
        total.append(-sum(p[t, row[t + 1]].log().item() for t in range(7)) / 7)
    assert window_losses(model, windows, 2).tolist() == pytest.approx(total, rel=1e-5)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    model, windows = tiny_llama(), random_windows(3, 8, lowest=0)
    assert perplexity(model, windows, 2) == window_losses(model, windows, 2).mean().exp().item()


def test_block_by_block_losses_are_the_models_own():
    model, windows = tiny_llama(), random_windows(5, 16)
    losses = window_losses_by_block(model, find_blocks(model, windows), windows, 2)
    assert torch.equal(losses, window_losses(model, windows, 2))


def test_block_by_block_losses_report_their_progress():
    model, windows, done = tiny_llama(), random_windows(5, 16), []
    window_losses_by_block(model, find_blocks(model, windows), windows, 2, progress=done.append)
    assert done[-1] == 5 and done == sorted(done)
