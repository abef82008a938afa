"""A disk that fills while a run goes on: one sentence, and what was pruned is kept."""

import json

import pytest
from safetensors.torch import load_file

from statprune.runs.ledger import JobState
from statprune.runs.store import read_record
from tests.helpers.full_disks import before, carried_out, counted_matrices, failing_once, fill, small_disk
from tests.helpers.interrupted import assert_same_files
from tests.helpers.warm import start_warm

MASKS = "tracking.artifacts=[masks]"
STORE, PIPELINE = "statprune.runs.store", "statprune.runs.pipeline"
SMALL = (  # what is written once the blocks can be found in the model: the same command prunes nothing again
    f"{PIPELINE}.save_masks",
    f"{PIPELINE}.measure_losses",
    f"{PIPELINE}.finish_record",
    f"{STORE}.model_card",
    f"{STORE}.write_record",
)
EARLY = (  # what is written before that
    "statprune.runs.own_model.complete",
    "statprune.model.saving.copy_side_files",
    "statprune.runs.job.locked",
    "statprune.runs.job._write_hydra_files",
    f"{PIPELINE}.measure_dense",
    f"{PIPELINE}.clear_reports",
    "statprune.runs.own_model.begin",
    "statprune.model.checkpoint.DiskSource.write",
    "statprune.walk.activations.OnDisk._write",
)


def test_reports_that_find_no_room_are_written_at_the_end(tiny_folder, tmp_path, monkeypatch, caplog):
    whole = carried_out(tiny_folder, tmp_path / "whole")
    failing_once(monkeypatch, "statprune.runs.context.append_reports", call=2)
    outcome = carried_out(tiny_folder, tmp_path / "run")
    assert outcome.state is whole.state is JobState.FINISHED
    assert caplog.text.count("reports can't be added to") == 1 and "No space left" in caplog.text
    layers = [
        [(report["block"], report["layer"]) for report in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "whole" / "blocks.jsonl", tmp_path / "run" / "blocks.jsonl")
    ]
    assert layers[0] == layers[1] and len(layers[0]) == 21
    assert read_record(tmp_path / "run").perplexity == read_record(tmp_path / "whole").perplexity


def test_a_run_that_fails_after_its_model_was_saved_prunes_nothing_again(tiny_folder, tmp_path, monkeypatch):
    """Two failures, one after the other, and a run without any, to the same bits."""
    pruned = counted_matrices(monkeypatch)
    whole = carried_out(tiny_folder, tmp_path / "whole", "save_model=true")
    count = len(pruned)
    with monkeypatch.context() as patch:
        failing_once(patch, "statprune.runs.measure.write_windows", call=2)
        failed = carried_out(tiny_folder, tmp_path / "run", "save_model=true")
    assert failed.state is JobState.FAILED and len(pruned) == 2 * count
    assert failed.reasons[0].startswith(f"{tmp_path / 'run'} can't be written to ([Errno 28] No space left on device)")
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert kept.keys() == load_file(tmp_path / "whole" / "model" / "model.safetensors").keys()
    again = carried_out(tiny_folder, tmp_path / "run", "save_model=true")
    assert again.state is whole.state is JobState.FINISHED and len(pruned) == 2 * count
    assert_same_files(tmp_path / "run", tmp_path / "whole")
    assert not (tmp_path / "run" / ".checkpoint").exists()


def test_masks_that_find_no_room_cost_neither_model_nor_measurements(tiny_folder, tmp_path, monkeypatch):
    pruned = counted_matrices(monkeypatch)
    with monkeypatch.context() as patch:
        failing_once(patch, f"{PIPELINE}.save_masks")
        failed = carried_out(tiny_folder, tmp_path, "save_model=true", MASKS)
    assert failed.state is JobState.FAILED and "the masks could not be saved" in failed.reasons[0]
    assert read_record(tmp_path).saved is not None and (tmp_path / "model" / "README.md").exists()
    count = len(pruned)
    again = carried_out(tiny_folder, tmp_path, "save_model=true", MASKS)
    assert again.state is JobState.FINISHED and (tmp_path / "masks.npz").exists() and len(pruned) == count


@pytest.mark.parametrize("name", [".hydra", "windows.parquet"])
def test_a_file_in_a_folders_place_and_the_other_way_round(tiny_folder, tmp_path, name):
    path = tmp_path / name
    path.touch() if name == ".hydra" else path.mkdir()
    outcome = carried_out(tiny_folder, tmp_path, MASKS)
    assert outcome.state is JobState.FAILED
    assert "stands where a f" in outcome.reasons[0] and "move it away" in outcome.reasons[0]


def test_hidden_states_that_one_run_could_not_write_are_no_fault_of_the_next(tiny_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        failing_once(patch, "statprune.walk.activations.OnDisk._write", call=2)
        failed = carried_out(tiny_folder, tmp_path / "one", "activations=disk")
    assert failed.state is JobState.FAILED and "hidden states can't be written ([Errno 28] No sp" in failed.reasons[0]
    assert carried_out(tiny_folder, tmp_path / "two", "activations=disk").state is JobState.FINISHED


def test_a_model_folder_that_is_empty_is_nobodys(tiny_folder, tmp_path, monkeypatch):
    """As it is left where the disk was full, or a process killed, before its marker was written."""
    with monkeypatch.context() as patch:
        failing_once(patch, "statprune.runs.own_model._write")
        failed = carried_out(tiny_folder, tmp_path, "save_model=true")
    assert failed.state is JobState.FAILED and "No space left on device" in failed.reasons[0]
    (tmp_path / "model").mkdir(exist_ok=True)
    assert carried_out(tiny_folder, tmp_path, "save_model=true").state is JobState.FINISHED


@pytest.mark.long
@pytest.mark.parametrize("stage", [*SMALL, *EARLY])
def test_a_disk_that_is_full_at_a_stage(tiny_folder, tmp_path, monkeypatch, stage):
    pruned = counted_matrices(monkeypatch)
    on_disk = ("offload=disk", "activations=disk") if stage in EARLY[-2:] else ()
    overrides = ("save_model=true", MASKS, *on_disk)
    try:
        mount = small_disk(tmp_path / "disk", "2m")
        disk = mount.__enter__()
    except OSError as error:
        pytest.skip(f"no file system can be mounted ({error})")
    try:
        with monkeypatch.context() as patch:
            before(patch, stage, lambda: fill(disk))
            failed = carried_out(tiny_folder, disk / "run", *overrides)
        assert failed.state is JobState.FAILED and len(failed.reasons) == 1
        assert "No space left on device" in failed.reasons[0], failed.reasons
        count = len(pruned)
        (disk / "filler").unlink()
        again = carried_out(tiny_folder, disk / "run", *overrides)
        assert again.state is JobState.FINISHED, again.reasons
        assert stage in EARLY or len(pruned) == count > 0
        assert (disk / "run" / "model" / "README.md").exists() and not (disk / "run" / ".checkpoint").exists()
    finally:
        mount.__exit__(None, None, None)


@pytest.mark.long
def test_of_two_processes_on_one_folder_one_writes(tiny_folder, tmp_path):
    """Started at once; the other ends in a sentence, or finds the run finished."""
    overrides = [f"model.path={tiny_folder}", "calibration.samples=64", "calibration.seq_len=32", "tracking=disabled"]
    overrides += ["evaluation.max_windows=4", "hydra.run.dir=run"]
    files = [(tmp_path / f"out{number}", tmp_path / f"err{number}") for number in range(2)]
    processes = [process for out, err in files for process in start_warm(overrides, tmp_path, out, err, [{}])]
    for process in processes:
        process.join(200)
    codes = [process.exitcode for process in processes]
    told = [err.read_text() for _, err in files]
    assert 0 in codes and all("Traceback" not in text for text in told)
    for code, text in zip(codes, told, strict=True):
        assert code == 0 or (code == 1 and "is being written by process" in text)
    assert read_record(tmp_path / "run").is_finished
