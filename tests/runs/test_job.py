"""One job: what it may replace in its folder, who may write there, and how it ended."""

import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from statprune.errors import ConfigError, Interrupted, KeptModelError, ModelError
from statprune.runs import job
from statprune.runs.earlier_run import remove_own_model
from statprune.runs.job import Outcome, carry_out
from statprune.runs.ledger import JobState
from statprune.runs.own_model import complete
from statprune.runs.verdict import Complete, Run
from statprune.runs.workbench import Workbench
from statprune.system.lock import locked
from tests.helpers.command import tiny_job
from tests.helpers.runs import recorded


def composed_job(folder, **changes):
    """The composed configuration of a job on the tiny model."""
    return OmegaConf.create(tiny_job(folder).resolved() | changes)


def carried_out(composed, folder, others_follow=False):
    return carry_out(composed, folder, Workbench(holds_model=False), others_follow)


@pytest.fixture
def own_model(tmp_path):
    """A user's file, where a run would save its model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    return tmp_path / "model" / "mine.txt"


@pytest.mark.usefixtures("own_model")
def test_a_model_that_no_run_wrote_is_not_replaced(tmp_path, tiny_folder):
    outcome = carried_out(composed_job(tiny_folder, save_model=True), tmp_path)
    assert outcome.state == JobState.FAILED and "was not written by this run, and would" in outcome.reasons[0]


def test_a_model_that_no_run_wrote_stays_beside_a_run_that_saves_none(tmp_path, tiny_folder, own_model):
    assert carried_out(composed_job(tiny_folder), tmp_path).state == JobState.FINISHED
    assert own_model.exists()


def test_a_model_that_no_run_wrote_stays_when_a_run_is_repeated(tmp_path, tiny_folder, own_model):
    assert carried_out(composed_job(tiny_folder), tmp_path).state == JobState.FINISHED
    assert carried_out(composed_job(tiny_folder, rerun=True), tmp_path).state == JobState.FINISHED
    assert own_model.exists()


def test_a_model_that_a_run_wrote_goes_when_the_next_saves_none(tmp_path, tiny_folder):
    assert carried_out(composed_job(tiny_folder, save_model=True), tmp_path).state == JobState.FINISHED
    assert (tmp_path / "model" / "README.md").exists()
    assert carried_out(composed_job(tiny_folder, rerun=True), tmp_path).state == JobState.FINISHED
    assert not (tmp_path / "model").exists()


def test_a_model_that_a_run_began_to_write_goes_too(tmp_path, tiny_folder):
    assert carried_out(composed_job(tiny_folder, save_model=True), tmp_path).state == JobState.FINISHED
    (tmp_path / "model" / "README.md").unlink()
    (tmp_path / "result.json").unlink()
    assert carried_out(composed_job(tiny_folder, rerun=True), tmp_path).state == JobState.FINISHED
    assert not (tmp_path / "model").exists()


def test_a_model_of_an_earlier_run_does_not_stay_beside_another_record(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    complete(tmp_path, "model", {})
    remove_own_model(tiny_job(tiny_folder), tmp_path)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("path", ["{folder}/model", "'~/model'"])
def test_a_model_of_an_earlier_run_stays_where_the_next_prunes_that_very_model(
    path, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_folder, tmp_path / "model")
    complete(tmp_path, "model", {})
    remove_own_model(tiny_job(path.format(folder=tmp_path)), tmp_path)
    assert (tmp_path / "model").exists()


def without_model(model, text):
    shutil.rmtree(model)


def with_a_damaged_model(model, text):
    (model / "model.safetensors").write_bytes(b"no weights")


def without_text(model, text):
    text.unlink()


def on_a_full_disk(model, text):
    pass


@pytest.mark.parametrize("refused", [without_model, with_a_damaged_model, without_text, on_a_full_disk])
def test_what_a_run_would_replace_stays_where_it_cant_start(refused, tiny_folder, tmp_path, monkeypatch):
    model, text, folder = shutil.copytree(tiny_folder, tmp_path / "dense"), tmp_path / "my.txt", tmp_path / "run"
    text.write_text("It is what it was. " * 400)
    folder.mkdir()
    reads = ["calibration=text", f"calibration.path={text}", "save_model=true", "offload=disk"]
    config = tiny_job(model, *reads).resolved()
    assert carried_out(OmegaConf.create(config), folder).reasons == []
    before = contents(folder)
    assert {"result.json", "model/config.json"} <= set(before)
    refused(model, text)
    if refused is on_a_full_disk:  # with what is saved there in its way, or else it would fit
        models = sum(len(content) for name, content in before.items() if name.startswith("model/"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=-models))
    outcome = carried_out(OmegaConf.create(config | {"rerun": True}), folder)
    assert outcome.state == JobState.FAILED and "Traceback" not in outcome.reasons[0]
    assert contents(folder) == before


def contents(folder):
    """A run's files; those of Hydra are of its last start."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".hydra")}


def test_the_room_of_a_model_that_is_replaced_counts_as_free(tiny_folder, tmp_path, monkeypatch):
    changes = {"save_model": True, "offload": "disk"}
    assert carried_out(composed_job(tiny_folder, **changes), tmp_path).reasons == []
    free = shutil.disk_usage(tmp_path)
    models = sum(len(content) for name, content in contents(tmp_path).items() if name.startswith("model/"))
    monkeypatch.setattr("statprune.runs.context.shutil.disk_usage", lambda _: free._replace(free=models // 2))
    assert carried_out(composed_job(tiny_folder, **changes, rerun=True), tmp_path).reasons == []


@pytest.fixture
def pending_job(tiny_folder, monkeypatch):
    """A job that only has to be completed, which takes no time."""
    record = recorded("pending")
    monkeypatch.setattr(job, "verdict_on", lambda *_: Complete(record))
    monkeypatch.setattr(job, "run", lambda *_, **__: record)
    return composed_job(tiny_folder)


def test_a_pending_run_that_another_process_completes_is_left_to_it(pending_job, tmp_path):
    with locked(tmp_path):
        outcome = carried_out(pending_job, tmp_path, others_follow=True)
    assert outcome.state == JobState.FAILED and "is being written by process" in outcome.reasons[0]


def test_a_pending_run_that_nobody_completes_is_completed(pending_job, tmp_path):
    assert carried_out(pending_job, tmp_path, others_follow=True).state == JobState.FINISHED


def test_a_pending_run_whose_model_cant_be_opened_is_pruned_again(pending_job, tmp_path, monkeypatch, caplog):
    attempts = []

    def opening(config, folder, bench, pending=None, earlier=None):
        attempts.append(pending)
        if pending is not None:
            raise KeptModelError("it lacks a tensor")
        return recorded("plain")

    monkeypatch.setattr(job, "run", opening)
    caplog.set_level("INFO")
    assert carried_out(pending_job, tmp_path).state == JobState.FINISHED
    assert attempts[1:] == [None] and "it lacks a tensor: the model is pruned again" in caplog.text


def test_an_interruption_is_no_failure_of_the_job_alone(tiny_folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise Interrupted(15, "stopped after block 3")

    monkeypatch.setattr(job, "run", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        carried_out(composed_job(tiny_folder), tmp_path, others_follow=True)
    assert caught.value.args == (15, "stopped after block 3")


def test_a_run_whose_lock_was_taken_writes_no_record(tiny_folder, tmp_path, monkeypatch):
    find = job.run

    def losing(config, folder, bench, **others):
        (folder / ".lock").write_text("{}")
        return find(config, folder, bench, **others)

    monkeypatch.setattr(job, "run", losing)
    outcome = carried_out(composed_job(tiny_folder), tmp_path)
    assert outcome.state == JobState.FAILED and "another process has taken over" in outcome.reasons[0]
    assert not (tmp_path / "result.json").exists()


def test_a_finished_run_is_skipped_while_its_folder_is_locked(tiny_folder, tmp_path):
    assert carried_out(composed_job(tiny_folder), tmp_path).state == JobState.FINISHED
    with locked(tmp_path):
        assert carried_out(composed_job(tiny_folder), tmp_path).state == JobState.SKIPPED


def test_a_finished_run_that_is_skipped_says_what_becomes_of_its_tracking(tiny_folder, tmp_path, caplog):
    tracked = {"tracking": tiny_job(tiny_folder).resolved()["tracking"] | {"mode": "offline"}}
    assert carried_out(composed_job(tiny_folder), tmp_path).state == JobState.FINISHED
    caplog.set_level("INFO")
    caplog.clear()  # of what the first run said, where another test has turned the log on
    assert carried_out(composed_job(tiny_folder, **tracked), tmp_path).state == JobState.SKIPPED
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path} is finished already; rerun=true runs it again; W&B gets nothing")


def test_why_a_run_is_run_again_is_said_once(tiny_folder, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setattr(job, "verdict_on", lambda *_: Run("it is run again"))
    monkeypatch.setattr(job, "run", lambda *_, **__: recorded("plain"))
    caplog.set_level("INFO")
    assert carried_out(composed_job(tiny_folder), tmp_path).line.count("run again") == 0
    assert caplog.messages == ["it is run again"] and "run again" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (ModelError("no such model"), ["no such model"]),
        (ConfigError(["one", "two"]), ["one", "two"]),
        (KeyError("x"), ["KeyError: 'x' (its traceback is above)"]),
    ],
)
def test_an_error_fails_the_job_alone_where_others_follow(error, reasons, tiny_folder, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(job, "run", failing)
    outcome = carried_out(composed_job(tiny_folder), tmp_path, others_follow=True)
    assert (outcome.state, outcome.reasons) == (JobState.FAILED, reasons)


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU's"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), "this machine's"),
    ],
    ids=["gpu", "host"],
)
def test_memory_that_is_too_small_ends_a_job_in_a_sentence(error, whose, tiny_folder, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(job, "run", failing)
    (reason,) = carried_out(composed_job(tiny_folder), tmp_path).reasons
    assert reason.startswith(f"{whose} memory is too small (") and reason.endswith("choose offload=cpu or disk")


def test_an_error_that_no_user_causes_is_raised_where_no_job_follows(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        carried_out(composed_job(tiny_folder), tmp_path)


def ended(record):
    return Outcome("folder", JobState.FINISHED, record=record)


def with_perplexity(value):
    record = recorded("plain")
    return replace(record, perplexity={"bundled": replace(record.perplexity["bundled"], pruned=value)})


def test_a_job_is_judged_by_its_perplexity():
    assert ended(recorded("zero_shot")).metric == recorded("zero_shot").perplexity["bundled"].pruned
    assert ended(recorded("zero_shot")).note.measured == "perplexity"


def test_a_job_without_a_perplexity_is_judged_by_its_zero_shot_error(limited):
    outcome = ended(limited)
    assert outcome.metric == pytest.approx(1 - limited.zero_shot.tasks["alone"].pruned["acc"])
    assert outcome.note.measured == "zero-shot error"


def test_a_job_that_failed_is_not_judged():
    assert Outcome("folder", JobState.FAILED, ["no"]).metric is None


@pytest.mark.parametrize("value", [None, math.inf])
def test_a_perplexity_that_is_not_finite_is_the_worst_there_is(value):
    outcome = ended(with_perplexity(value))
    assert outcome.metric == math.inf == outcome.note.metric


def test_the_line_of_a_job_shows_its_perplexity_and_sparsity():
    assert ended(recorded("plain")).line == (
        "folder: finished, perplexity on bundled 97.1810 dense, 96.4556 pruned, sparsity 0.5000"
    )


def test_the_line_of_a_job_that_only_measured_has_one_perplexity():
    measured = replace(recorded("plain"), calibration=None)
    assert ended(measured).line == "folder: finished, perplexity on bundled 97.1810, sparsity 0.5000"


def test_the_line_of_a_job_says_where_its_perplexity_is_not_finite():
    assert "not finite pruned" in ended(with_perplexity(None)).line


def test_the_line_of_a_failed_job_gives_the_reasons():
    assert Outcome("folder", JobState.FAILED, ["one", "two"]).line == "folder: failed; one; two"
