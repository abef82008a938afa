"""Commands that end while they prune, by a request or a kill: the same command goes on to the same numbers."""

import random
import signal
from pathlib import Path

import pytest

from statprune.errors import Interrupted
from statprune.runs import measure
from statprune.runs.pipeline import run
from statprune.runs.store import CHECKPOINT, read_record
from statprune.system import stop_request
from tests.helpers.command import in_processes, statprune, tiny_job
from tests.helpers.interrupted import BLOCKS, assert_same_files, deep_folder

# a plugin that kills its process after so many scores, which a file counts down
KILLER = """
import os, pathlib, signal
import statprune
from statprune.system import stop_request

@statprune.score()
def watched(weight, statistics):
    left = pathlib.Path("left")
    if left.exists():
        count = int(left.read_text())
        left.write_text(str(count - 1))
        if count <= 0:
            left.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    if pathlib.Path("stop").exists() and pathlib.Path("solved").stat().st_size >= 20:
        stop_request.request(signal.SIGTERM)
    pathlib.Path("solved").open("a").write("x")
    return weight.abs() * statistics.norm
"""
TINY = ["calibration.samples=3", "calibration.seq_len=16", "evaluation.seq_len=16", "evaluation.max_windows=3"]
TINY += ["tracking=disabled", "cache=null", "save_model=true", "checkpoint=true"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return deep_folder(tmp_path_factory.mktemp("model"))


def test_a_run_that_was_asked_to_stop_goes_on(model, tmp_path, monkeypatch):
    config = tiny_job(model, "save_model=true", "checkpoint=true", "compensation=moments", "propagation=sequential")
    with monkeypatch.context() as patch:
        told = []

        def stop_at_3(*_):
            told.append(1)
            if len(told) == 3:
                stop_request.request(signal.SIGTERM)

        patch.setattr("statprune.runs.context.append_reports", stop_at_3)
        patch.setattr(stop_request, "_signal", None)  # and afterwards as it was
        with pytest.raises(Interrupted, match="goes on after 3 of 5 blocks") as caught:
            run(config, tmp_path / "run")
    assert caught.value.signal == signal.SIGTERM
    with monkeypatch.context() as patch:
        patch.setattr(measure, "dense_losses", lambda *_: pytest.fail("again"))
        record = run(config, tmp_path / "run")
    assert record.resumed_blocks == 3 and not (tmp_path / "run" / CHECKPOINT).exists()
    whole = run(config, tmp_path / "whole")
    assert whole.resumed_blocks == 0
    assert_same_files(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_can_not_save_its_model_prunes_nothing_again(model, tmp_path, monkeypatch):
    config = tiny_job(model, "save_model=true", "checkpoint=true")
    with monkeypatch.context() as patch:
        patch.setattr("statprune.runs.pipeline.save_model", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(Exception, match="could not be saved"):
            run(config, tmp_path)
    assert run(config, tmp_path).resumed_blocks == BLOCKS


def command(folder: Path, model: Path, *overrides: str, processes: int = 1) -> int:
    """Run the command with the plugin; its exit status."""
    (folder / "killer.py").write_text(KILLER)
    arguments = [f"model.path={model}", "plugins=[killer.py]", "method=watched", *TINY, *overrides]
    start = statprune if processes == 1 else lambda *own, cwd: in_processes(processes, *own, cwd=cwd)
    return start(*arguments, cwd=folder).returncode


def run_folder(folder: Path) -> Path:
    """Where the only run below a working directory is."""
    (path,) = folder.glob("outputs/*/*/result.json")
    return path.parent


@pytest.mark.long
@pytest.mark.parametrize("overrides", [[], ["offload=disk", "propagation=sequential"]], ids="-".join)
def test_a_command_that_is_killed_again_and_again_goes_on(overrides, model, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert command(whole, model, *overrides) == 0
    kills, draw = 0, random.Random(len(overrides))
    for _ in range(4):
        (killed / "left").write_text(str(draw.randrange(5, 16)))
        if command(killed, model, *overrides) == 0:
            break
        kills += 1
    (killed / "left").unlink(missing_ok=True)
    assert command(killed, model, *overrides) == 0 and kills >= 2
    assert read_record(run_folder(killed)).resumed_blocks > 0
    assert_same_files(run_folder(killed), run_folder(whole))
    assert len((killed / "solved").read_text()) < (kills + 1) * len((whole / "solved").read_text()) * 0.8
    assert not (run_folder(killed) / CHECKPOINT).exists()


@pytest.mark.long
def test_two_processes_go_on(model, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert command(whole, model, processes=2) == 0
    (killed / "stop").touch()
    (killed / "solved").touch()
    assert command(killed, model, processes=2) != 0
    (killed / "stop").unlink()
    assert command(killed, model, processes=2) == 0
    assert read_record(run_folder(killed)).resumed_blocks > 0
    assert_same_files(run_folder(killed), run_folder(whole))
