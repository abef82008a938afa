"""Divergence and agreement against plain formulas in float64."""

import pytest
import torch

from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.errors import ModelError
from statprune.evaluation import fidelity
from statprune.evaluation.fidelity import window_fidelity
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


def changed_llama():
    model = tiny_llama()
    for index, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        parameter.data.add_(0.005 * noise)
    return model


@pytest.mark.parametrize("entries", [1, 3 * 97 * fidelity.COPIES, 2**18])  # one token at a time, three, all
def test_fidelity_is_that_of_a_loop_over_tokens(entries, monkeypatch):
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", entries)
    dense, pruned, windows = tiny_llama(), changed_llama(), random_windows(3, 9, lowest=0)
    divergence, agreement = torch.zeros(3).double(), torch.zeros(3).double()
    for index, row in enumerate(windows):
        with torch.no_grad():
            p, q = (model(row[None]).logits[0].double().softmax(-1) for model in (dense, pruned))
        for t in range(8):  # what follows the last token is not in the window
            divergence[index] += sum(p[t, k] * (p[t, k] / q[t, k]).log() for k in range(97)) / 8
            agreement[index] += float(p[t].argmax() == q[t].argmax()) / 8
    found = window_fidelity(dense, pruned, windows, 2)
    assert found.divergence.dtype == torch.float64 and 0 < found.agreement.min() < 1
    torch.testing.assert_close(found.divergence, divergence, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found.agreement, agreement)


def test_a_model_is_perfectly_faithful_to_itself():
    found = window_fidelity(tiny_llama(), tiny_llama(), random_windows(2, 8))
    assert found.divergence.tolist() == [0, 0] and found.agreement.tolist() == [1, 1]


def test_a_token_that_both_models_rule_out_adds_nothing():
    p = torch.tensor([[0.0, 1.0, -torch.inf]])
    divergence, _ = fidelity.compared(p, p)
    assert divergence == 0


def test_progress_counts_windows():
    done = []
    window_fidelity(tiny_llama(), tiny_llama(), random_windows(3, 8), 2, done.append)
    assert done == [2, 3]


def test_models_of_different_vocabularies_are_not_compared():
    larger = tiny_llama()
    larger.resize_token_embeddings(101)
    with pytest.raises(ModelError, match="these have 97 and 101 tokens"):
        window_fidelity(tiny_llama(), larger, random_windows(1, 8))
