"""Fidelity from the dense model's kept hidden states is that of two models in memory, to the last bit."""

import copy

import pytest
import torch

from statprune.evaluation.fidelity import window_fidelity
from statprune.evaluation.last_states import FidelityMeter, keeping_last_states, last_states
from statprune.evaluation.perplexity import batches_after_blocks, losses_after_blocks, window_losses
from statprune.walk.activations import OnDevice, OnDiskIn
from statprune.walk.discover import find_blocks
from tests.helpers.families import tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16)


@pytest.fixture(scope="module", params=["LlamaConfig", "Gemma3nTextConfig"])
def case(request):
    """A model and its blocks, how it was before it was changed, and their fidelity."""
    model = tiny_model(request.param)
    blocks, dense = find_blocks(model, WINDOWS), copy.deepcopy(model)

    def prune():
        for block in blocks:
            for matrix in block.matrices:
                matrix.parameter.data.mul_(matrix.parameter.data.abs() > 0.1)

    return model, blocks, dense, prune


def in_memory(model, blocks, store):
    with keeping_last_states(blocks, store) as states:
        losses = window_losses(model, WINDOWS, 2)
    return losses, states


def in_blocks(model, blocks, store):
    batches = batches_after_blocks(model, blocks, WINDOWS, 2, store, None)
    return losses_after_blocks(model, blocks, batches, WINDOWS), [batch.stored for batch in batches]


def without_losses(model, blocks, store):
    done = []
    states = last_states(model, blocks, WINDOWS, 2, store, done.append)
    assert done == [2, 4, 5]
    return None, states


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("keep", [in_memory, in_blocks, without_losses], ids=lambda keep: keep.__name__)
def test_fidelity_of_kept_states_is_that_of_two_models(keep, is_on_disk, case, tmp_path):
    model, blocks, dense, prune = case
    model.load_state_dict(dense.state_dict())
    store = OnDiskIn(tmp_path) if is_on_disk else OnDevice
    losses, states = keep(model, blocks, store)
    prune()
    meter = FidelityMeter(model, blocks, states)
    pruned = window_losses(model, WINDOWS, 2, on_logits=meter)
    wanted = window_fidelity(dense, model, WINDOWS, 2)
    assert torch.equal(meter.fidelity.divergence, wanted.divergence) and wanted.divergence.min() > 0
    assert torch.equal(meter.fidelity.agreement, wanted.agreement)
    assert torch.equal(pruned, window_losses(model, WINDOWS, 2))
    assert torch.equal(meter.dense_losses, window_losses(dense, WINDOWS, 2))
    assert losses is None or torch.equal(losses, meter.dense_losses)


def test_pruned_windows_may_go_block_by_block(case):
    model, blocks, dense, prune = case
    model.load_state_dict(dense.state_dict())
    _, states = in_memory(model, blocks, OnDevice)
    prune()
    meter = FidelityMeter(model, blocks, states)
    batches = batches_after_blocks(model, blocks, WINDOWS, 2, OnDevice, None)
    losses = losses_after_blocks(model, blocks, batches, WINDOWS, meter)
    assert torch.equal(losses, window_losses(model, WINDOWS, 2))
    assert torch.equal(meter.fidelity.divergence, window_fidelity(dense, model, WINDOWS, 2).divergence)


def test_files_of_kept_states_go_with_them(case, tmp_path):
    model, blocks, *_ = case
    _, states = in_memory(model, blocks, OnDiskIn(tmp_path))
    assert states[0].get().shape[-1] == 32 and len(list(tmp_path.glob("tmp*.hidden"))) == 3
    states.clear()
    assert not list(tmp_path.iterdir())


def test_the_hook_goes_with_the_body(case):
    blocks = case[1]
    with pytest.raises(KeyError), keeping_last_states(blocks, OnDevice):
        raise KeyError
    assert not blocks[-1].module._forward_hooks


def test_a_meter_that_saw_no_window_has_none():
    fidelity = FidelityMeter(None, [], []).fidelity
    assert len(fidelity.divergence) == len(fidelity.agreement) == 0
