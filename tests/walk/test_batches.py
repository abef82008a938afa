"""Batches of windows on their way through a model."""

import pytest
import torch

from statprune.errors import ModelError
from statprune.walk.activations import OnePiece
from statprune.walk.batches import advance, capture, logits
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16, lowest=0)


@torch.no_grad()
def model_logits(model):
    """From the model's own forward, in batches of two windows."""
    return torch.cat([model(part, use_cache=False).logits for part in WINDOWS.split(2)])


@torch.no_grad()
def test_the_walk_gives_the_models_own_hidden_states():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    batches = capture(model, blocks, WINDOWS, 2)
    for block in blocks:
        for batch in batches:
            batch.hidden = batch.run(block)
    walked = torch.cat([model.lm_head(model.model.norm(batch.hidden)) for batch in batches])
    assert torch.equal(walked, model_logits(model))


@torch.no_grad()
def test_the_head_gives_the_models_own_logits_after_the_walk():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    batches = capture(model, blocks, WINDOWS, 2)
    for block in blocks:
        advance(block, batches)
    parts = zip(batches, WINDOWS.split(2), strict=True)
    assert torch.equal(torch.cat([logits(model, blocks, batch, ids) for batch, ids in parts]), model_logits(model))


@torch.no_grad()
def test_a_copied_batch_goes_a_way_of_its_own():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    (batch,) = capture(model, blocks, WINDOWS, 5)
    before, copied = batch.hidden.clone(), batch.copy()
    advance(blocks[0], [copied])
    assert torch.equal(batch.hidden, before) and not torch.equal(copied.hidden, before)


@torch.no_grad()
def test_blocks_of_another_model_are_refused():
    blocks = find_blocks(tiny_llama(), WINDOWS)
    with pytest.raises(ModelError, match="find them in this very model"):
        capture(tiny_llama(), blocks, WINDOWS, 2)


@torch.no_grad()
def test_all_batches_wait_in_one_piece_of_memory():
    model = tiny_llama()
    blocks = find_blocks(model, WINDOWS)
    batches = capture(model, blocks, WINDOWS, 2)  # the last has one window
    advance(blocks[0], batches)
    assert len({batch.hidden.untyped_storage().data_ptr() for batch in batches}) == 1
    apart = [capture(model, blocks, part, 2)[0] for part in WINDOWS.split(2)]
    advance(blocks[0], apart)
    assert all(torch.equal(batch.hidden, other.hidden) for batch, other in zip(batches, apart, strict=True))


@pytest.mark.parametrize("second", [torch.ones(3, 2, 4), torch.ones(1, 2, 4, dtype=torch.float64)])
def test_hidden_states_that_do_not_fit_get_memory_of_their_own(second):
    together = OnePiece(3)
    first = together.hold(torch.zeros(2, 2, 4), 2)
    held = together.hold(second, 1)
    assert torch.equal(held, second) and held.dtype is second.dtype and held.is_contiguous()
    assert held.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
    assert torch.equal(first, torch.zeros(2, 2, 4))
