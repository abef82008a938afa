"""Weights that the stored dtype can't hold: the layer and the dtype are named, at once or when a GPU's numbers come."""

import json

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.errors import ModelError
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixIdentity, PendingReport
from statprune.pruning.spec import PruneSpec
from statprune.runs.ledger import LEDGER, JobNote, JobState, write_note
from statprune.system.timing import Stopwatch
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


@pytest.mark.parametrize("block", [0, 2])
def test_a_matrix_that_overflows_its_dtype_names_block_layer_and_dtype(block):
    model = tiny_llama().half()
    with torch.no_grad():
        down = model.model.layers[block].mlp.down_proj.weight
        down.copy_(down.sign() * 6e4)
        model.model.layers[block].mlp.up_proj.weight.mul_(1e-3)  # the block's outputs stay finite
    expected = rf"layer mlp\.down_proj of block {block} can't be stored in float16: .*the largest float16 is 6\.55e\+04"
    with pytest.raises(ModelError, match=expected):
        prune(model, random_windows(4, 16), PruneSpec(get_method("wanda"), Unstructured(0.5), Energy()))


def test_an_overflow_that_a_gpu_finds_is_reported_with_its_numbers():
    """There the sparsity is NaN, since nothing waits for a check."""
    identity = MatrixIdentity(3, "mlp.up_proj", None, 4, 4, 16, 0.5, 7, False)
    pending = PendingReport(identity, {}, Stopwatch(torch.device("cpu")), torch.float16)
    numbers = {"sparsity": float("nan"), "relative_output_error": float("inf")}
    with pytest.raises(ModelError, match=r"layer mlp\.up_proj of block 3 can't be stored in float16"):
        pending.finished(numbers)


def test_a_note_of_a_job_without_a_finite_number_is_json(tmp_path, monkeypatch):
    monkeypatch.setenv(LEDGER, str(tmp_path))
    write_note(0, JobNote("folder", JobState.FINISHED, [], float("inf"), "perplexity"))
    assert json.loads((tmp_path / "0.json").read_text(), parse_constant=pytest.fail)["metric"] == "inf"
