"""Runs that are interrupted while they prune go on from the last whole block, to the same bits."""

import pytest

from statprune.runs.pipeline import run
from statprune.runs.store import CHECKPOINT
from tests.helpers.command import tiny_job
from tests.helpers.interrupted import BLOCKS, count_solves, deep_folder, interrupt, numbers_of

MATRICES = 7  # of a block of the plain model
COMMON = ("calibration.samples=3", "save_model=true", "tracking.artifacts=[masks]", "checkpoint=true")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return deep_folder(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return deep_folder(tmp_path_factory.mktemp("mixture"), mixture=True)


def job(model, *overrides):
    return tiny_job(model, *COMMON, *overrides)


CASES = [
    [],
    ["propagation=sequential", "method=sparsegpt"],
    ["propagation=dense"],
    ["offload=cpu"],
    ["offload=disk"],
    ["offload=disk", "propagation=sequential"],
    ["offload=disk", "propagation=dense"],
    ["sparsity.allocation=owl", "calibration.batch_size=2"],
    ["compensation=moments", "propagation=sequential", "activations=disk"],
    ["refinement=none", "compensation=energy", "offload=cpu", "propagation=dense"],
]


@pytest.mark.parametrize("overrides", CASES, ids="-".join)
def test_an_interrupted_run_goes_on_to_the_same_bits(overrides, plain, tmp_path, monkeypatch):
    config = job(plain, *overrides)
    whole = run(config, tmp_path / "whole")
    assert "goes on after 3 of 5 blocks" in interrupt(config, tmp_path / "run", 3, monkeypatch)
    solves, record = count_solves(lambda: run(config, tmp_path / "run"), monkeypatch)
    assert (solves, record.resumed_blocks, whole.resumed_blocks) == ((BLOCKS - 3) * MATRICES, 3, 0)
    numbers_of(tmp_path / "run").assert_equal(numbers_of(tmp_path / "whole"))
    assert record.sparsity == whole.sparsity and record.coverage == whole.coverage
    assert record.correction == whole.correction
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
@pytest.mark.parametrize("propagation", ["pruned", "sequential"])
def test_an_interrupted_mixture_goes_on_to_the_same_bits(offload, propagation, mixture, tmp_path, monkeypatch):
    config = job(mixture, f"offload={offload}", f"propagation={propagation}")
    run(config, tmp_path / "whole")
    interrupt(config, tmp_path / "run", 2, monkeypatch)
    interrupt(config, tmp_path / "run", 4, monkeypatch)  # of the five that are told, two are not pruned again
    assert run(config, tmp_path / "run").resumed_blocks == 4
    numbers_of(tmp_path / "run").assert_equal(numbers_of(tmp_path / "whole"))
