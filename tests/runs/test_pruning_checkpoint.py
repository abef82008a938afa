"""Pruning that ended early goes on from the last whole block, to the same bits."""

import logging

import pytest

from statprune.config.sections import Checkpoint
from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Unstructured
from statprune.pruning.allocation import Owl
from statprune.pruning.spec import PruneSpec
from statprune.runs.checkpoint_files import HEADER, CheckpointFiles
from statprune.runs.checkpoint_opening import afresh, found_in
from statprune.runs.store import CHECKPOINT
from tests.helpers.interrupted import BLOCKS, PARTS, attempt, deep_folder

MATRICES = 7  # of a block of the plain model
HALF = Unstructured(0.5)
CVR = PruneSpec(get_method("cvr"), HALF, Energy())
SPARSEGPT = PruneSpec(get_method("sparsegpt"), HALF, propagation="sequential")
DENSE = PruneSpec(get_method("wanda"), HALF, Moments(), propagation="dense")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return deep_folder(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return deep_folder(tmp_path_factory.mktemp("mixture"), mixture=True)


def goes_on(model, folder, spec, offload="none", then=None, stops=(3,)):
    """Interrupt pruning, finish it in another attempt and compare that with one that was never interrupted."""
    whole = attempt(model, folder / "whole", spec, mode=Checkpoint.false)
    for stop in stops:
        attempt(model, folder / "run", spec, offload, stop_after=stop)
    last = attempt(model, folder / "run", spec, then or offload)
    last.assert_equals(whole)
    return last


@pytest.mark.parametrize(
    ("spec", "offload"),
    [(CVR, "none"), (CVR, "cpu"), (SPARSEGPT, "none"), (DENSE, "disk")]
    + [
        pytest.param(spec, offload, marks=pytest.mark.long)
        for spec, offload in [(CVR, "disk"), (SPARSEGPT, "cpu"), (SPARSEGPT, "disk"), (DENSE, "none"), (DENSE, "cpu")]
    ],
)
def test_an_interrupted_attempt_goes_on_to_the_same_bits(spec, offload, plain, tmp_path):
    last = goes_on(plain, tmp_path, spec, offload)
    assert (len(last.checkpoint.finished), last.solved) == (3, (BLOCKS - 3) * MATRICES)


@pytest.mark.parametrize(
    ("propagation", "offload"),
    [("sequential", "none"), ("pruned", "disk")]
    + [
        pytest.param(propagation, offload, marks=pytest.mark.long)
        for propagation, offload in [("dense", "cpu"), ("dense", "disk"), ("sequential", "disk"), ("pruned", "cpu")]
    ],
)
def test_a_mixture_of_experts_goes_on_to_the_same_bits(propagation, offload, mixture, tmp_path):
    spec = PruneSpec(get_method("wanda"), HALF, propagation=propagation, min_expert_tokens=100)
    last = goes_on(mixture, tmp_path, spec, offload, stops=(1, 3))
    assert len(last.checkpoint.finished) == 3 and any(report["pooled_statistics"] for report in last.reports)


@pytest.mark.long
@pytest.mark.parametrize(("offload", "then"), [("disk", "none"), ("none", "disk"), ("disk", "cpu"), ("cpu", "disk")])
def test_an_attempt_goes_on_wherever_blocks_wait(offload, then, mixture, tmp_path):
    goes_on(mixture, tmp_path, CVR, offload, then)


def test_ratios_of_an_allocation_are_kept(plain, tmp_path, monkeypatch):
    spec = PruneSpec(get_method("wanda"), HALF, allocation=Owl(), propagation="dense")
    whole = attempt(plain, tmp_path / "whole", spec, mode=Checkpoint.false)
    attempt(plain, tmp_path / "run", spec, stop_after=2)
    monkeypatch.setattr(Owl, "ratios", lambda *_: pytest.fail("computed again"))
    attempt(plain, tmp_path / "run", spec).assert_equals(whole)


def test_after_the_last_block_nothing_runs_through_the_model(plain, tmp_path, monkeypatch):
    whole = attempt(plain, tmp_path, CVR, stop_after=BLOCKS)
    monkeypatch.setattr("statprune.pruning.calibration.capture", lambda *_: pytest.fail("captured again"))
    again = attempt(plain, tmp_path, CVR)
    again.assert_equals(whole)
    assert again.solved == 0


def test_seconds_are_those_of_all_attempts(plain, tmp_path):
    attempt(plain, tmp_path, CVR, stop_after=4)
    last = attempt(plain, tmp_path, CVR)
    earlier = last.checkpoint.finished[-1].seconds
    assert all(last.seconds[phase] >= seconds for phase, seconds in earlier.items()) and earlier["solve"] > 0


def test_nothing_is_kept_where_nothing_is_to_be(plain, tmp_path):
    attempt(plain, tmp_path, CVR, mode=Checkpoint.false, stop_after=3)
    assert not (tmp_path / CHECKPOINT).exists()


def test_auto_keeps_blocks_on_disk_that_are_there_anyway(plain, tmp_path):
    attempt(plain, tmp_path, CVR, "disk", Checkpoint.auto, stop_after=3)
    shards = sorted((tmp_path / CHECKPOINT).glob("*.safetensors"))
    assert [path.name for path in shards] == [f"block-{index:05d}.shard-0.safetensors" for index in range(3)]


def test_auto_keeps_blocks_where_pruning_takes_long(plain, tmp_path, monkeypatch, caplog):
    attempt(plain, tmp_path / "short", CVR, mode=Checkpoint.auto, stop_after=3)
    assert not (tmp_path / "short" / CHECKPOINT).exists()
    monkeypatch.setattr("statprune.runs.pruning_checkpoint.LONG", 0.0)
    with caplog.at_level(logging.INFO):
        attempt(plain, tmp_path / "long", CVR, mode=Checkpoint.auto, stop_after=3)
    assert "is predicted to take" in caplog.text and "KiB at most" in caplog.text
    assert attempt(plain, tmp_path / "long", CVR, mode=Checkpoint.auto).solved == 2 * MATRICES


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "ending"),
    [
        (flip, "safetensors"),
        (flip, "json"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "safetensors"),
        (lambda path: path.unlink(), "safetensors"),
    ],
)
def test_a_damaged_block_and_those_after_it_are_pruned_again(damage, ending, plain, tmp_path, caplog):
    whole = attempt(plain, tmp_path / "whole", CVR, mode=Checkpoint.false)
    attempt(plain, tmp_path / "run", CVR, stop_after=4)
    damage(tmp_path / "run" / CHECKPOINT / f"block-00002.{ending}")
    last = attempt(plain, tmp_path / "run", CVR)
    last.assert_equals(whole)
    assert last.solved == (BLOCKS - 2) * MATRICES


def test_a_damaged_header_discards_all(plain, tmp_path, caplog):
    attempt(plain, tmp_path, CVR, stop_after=2)
    flip(tmp_path / CHECKPOINT / HEADER)
    assert attempt(plain, tmp_path, CVR).solved == BLOCKS * MATRICES
    assert "is discarded, and pruning starts at the first block: it is damaged" in caplog.text


def test_blocks_of_other_inputs_are_discarded(plain, tmp_path, caplog):
    attempt(plain, tmp_path, CVR, stop_after=2)
    files = CheckpointFiles(tmp_path / CHECKPOINT)
    assert not found_in(files, PARTS | {"model": "another"}).blocks and not files.folder.exists()
    assert "it was begun with other inputs (differing: model)" in caplog.text


def test_a_rerun_discards_what_is_kept(plain, tmp_path):
    attempt(plain, tmp_path, CVR, stop_after=2)
    files = CheckpointFiles(tmp_path / CHECKPOINT)
    assert not afresh(files).blocks and not files.folder.exists()


def test_a_full_disk_costs_a_warning_and_later_blocks(plain, tmp_path, monkeypatch, caplog):
    write = CheckpointFiles.write_block

    def fails_at_2(self, index, *arguments):
        if index == 2:
            raise OSError(28, "No space left on device")
        write(self, index, *arguments)

    monkeypatch.setattr(CheckpointFiles, "write_block", fails_at_2)
    whole = attempt(plain, tmp_path, CVR)
    assert whole.solved == BLOCKS * MATRICES and caplog.text.count("can't be kept") == 1
    monkeypatch.undo()
    last = attempt(plain, tmp_path, CVR)
    last.assert_equals(whole)
    assert last.solved == (BLOCKS - 2) * MATRICES


def test_what_a_killed_process_had_begun_is_removed(plain, tmp_path):
    attempt(plain, tmp_path, CVR, stop_after=2)
    (tmp_path / CHECKPOINT / "block-00002.safetensors").write_bytes(b"half")
    (tmp_path / CHECKPOINT / ".block-00001.json.123").write_bytes(b"half")
    assert len(found_in(CheckpointFiles(tmp_path / CHECKPOINT), PARTS).blocks) == 2
    assert len(list((tmp_path / CHECKPOINT).iterdir())) == 5  # the header, and two files for each block
