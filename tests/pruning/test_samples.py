"""Which input rows are sampled: as many as the stages ask for, drawn at random, the same in any number of processes."""

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Unstructured
from statprune.pruning.calibration import own_sample
from statprune.pruning.spec import PruneSpec

WINDOWS = torch.zeros(6, 50, dtype=torch.long)


@pytest.mark.parametrize(
    ("compensation", "rows"),
    [(None, 256), (Energy(), 256), (Moments(), 512), (Moments(samples=1000), 1000), (Moments(samples=8), 256)],
)
def test_as_many_rows_are_sampled_as_the_report_and_the_compensation_ask_for(compensation, rows):
    assert PruneSpec(get_method("wanda"), Unstructured(0.5), compensation).sampled_rows == rows


@pytest.mark.parametrize("seed", [0, 7])
def test_sampled_tokens_are_drawn_at_random_by_the_seed(seed):
    wanted = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:40].sort().values
    sample = own_sample(WINDOWS, 40, seed)
    assert torch.equal(sample, wanted) and not torch.equal(sample, torch.arange(40))


def test_fewer_tokens_than_rows_are_all_sampled():
    assert torch.equal(own_sample(WINDOWS, 1000, 0), torch.arange(300))


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_sample_together_what_one_alone_would(processes, monkeypatch):
    alone = own_sample(WINDOWS, 40, 3)
    together, first = [], 0
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        together.append(own_sample(WINDOWS, 40, 3) + first)
        first += 50 * (6 * (rank + 1) // processes - 6 * rank // processes)
    assert torch.equal(torch.cat(together), alone)


def test_sampling_leaves_torch_s_own_random_state_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    own_sample(WINDOWS, 40, 3)
    assert torch.equal(torch.get_rng_state(), state)
