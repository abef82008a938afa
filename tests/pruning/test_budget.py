"""The peak that a run predicts: what is held, and the largest of the stages that follow each other."""

import pytest
import torch

from statprune.pruning import budget
from statprune.pruning.budget import MemoryNeed, predict_peak
from statprune.walk.activations import Placement

HELD = 1000
NEED = MemoryNeed(blocks=0, activations=10, walk=3, statistics=4, solve=5, evaluate=2, kept=7)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def held(monkeypatch):
    monkeypatch.setattr(budget, "resident", lambda: HELD)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 500)


def test_hidden_states_statistics_and_the_larger_of_walking_and_solving_come_together():
    assert predict_peak(NEED, Placement.device, CPU).host == HELD + 7 + 10 + 4 + 5


@pytest.mark.parametrize(("saving", "host"), [(0, 26), (19, 26), (20, 27), (50, 57)])
def test_a_shard_is_written_once_the_blocks_are_pruned_beside_the_dense_models_states(saving, host):
    assert predict_peak(NEED, Placement.device, CPU, saving=saving).host == HELD + host


def test_states_that_wait_on_disk_take_no_memory_while_the_model_is_written():
    assert predict_peak(NEED, Placement.disk, CPU, saving=50).host == HELD + 50


@pytest.mark.parametrize(("placement", "saving", "host"), [("device", 50, 50), ("host", 5, 17), ("host", 50, 57)])
def test_with_a_gpu_a_shard_is_on_the_host(placement, saving, host):
    predicted = predict_peak(NEED, Placement(placement), GPU, saving=saving)
    assert predicted.host == HELD + host
    assert predicted.device == 500 + (26 if placement == "device" else 9)


def test_copies_of_the_dense_weights_wait_all_the_time():
    assert predict_peak(NEED, Placement.device, CPU, copies=100, saving=50).host == HELD + 100 + 57
