"""Weights & Biases: what it gets, and that a run never depends on it."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import wandb
from transformers import AutoModelForCausalLM

from statprune.config.sections import TrackingConfig
from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from statprune.runs.tracking import Tracker, _tags, note_on_skipped, run_id
from tests.helpers.command import statprune, tiny_job
from tests.helpers.runs import SMALL, records
from tests.helpers.tasks import evaluated
from tests.helpers.wandb_files import wandb_run


def tracked(folder):
    """What W&B's only file below the folder says."""
    (file,) = folder.rglob("*.wandb")
    return wandb_run(file)


@pytest.fixture(scope="module")
def tries(tmp_path_factory, tiny_folder):
    """The configuration of a run that fails and is tried again, and what W&B was sent of both."""
    folder = tmp_path_factory.mktemp("tries")
    config = tiny_job(tiny_folder, "tracking=offline", "tracking.tags=[mine]", "tracking.notes=why")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("statprune.runs.pipeline.prune", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, folder / "failed")
    run(config, folder / "again")
    return config, tracked(folder / "failed"), tracked(folder / "again")


def test_a_failed_run_is_finished_with_an_error(tries):
    _, failed, _ = tries
    assert failed["finished"] and failed["exit_code"] == 1


def test_another_try_is_finished_without_an_error(tries):
    _, _, again = tries
    assert again["finished"] and again["exit_code"] == 0


def test_another_try_has_the_same_id(tries):
    config, failed, again = tries
    assert failed["id"] == again["id"] == run_id(config)


def test_tags_and_notes_of_the_user_are_sent(tries):
    _, _, again = tries
    assert "mine" in again["tags"] and again["notes"] == "why"


def test_a_saved_model_is_tagged_with_the_run_it_came_from(tries, tmp_path):
    config, _, _ = tries
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "result.json").touch()
    path = str(tmp_path / "mine" / "model")
    saved = replace(config, model=replace(config.model, path=path), tracking=TrackingConfig())
    assert _tags(saved) == ["cvr", "0.5", "mine"]


def test_wandb_writes_below_the_runs_folder_wherever_its_process_was_started(tiny_folder, tmp_path, monkeypatch):
    wandb.setup()
    monkeypatch.chdir(tmp_path)
    run(tiny_job(tiny_folder, "tracking=offline"), Path("here"))
    (file,) = (tmp_path / "here").glob("wandb/offline-run-*/*.wandb")
    assert wandb_run(file)["exit_code"] == 0


@pytest.fixture(scope="module")
def with_artifacts(tmp_path_factory, tiny_folder):
    """The folder of a run whose masks and model are uploaded."""
    folder = tmp_path_factory.mktemp("artifacts")
    wanted = ("tracking=offline", "tracking.artifacts=[masks,model]", "save_model=true")
    run(tiny_job(tiny_folder, *wanted), folder)
    return folder


def test_masks_are_those_of_the_saved_model(with_artifacts):
    model = AutoModelForCausalLM.from_pretrained(with_artifacts / "model")
    masks = numpy.load(with_artifacts / "masks.npz")
    assert len(masks) == 21
    for name in masks:
        weight = model.get_parameter(f"{name}.weight").detach().numpy()
        assert (numpy.unpackbits(masks[name], axis=1)[:, : weight.shape[1]] == (weight != 0)).all()


def test_masks_and_models_are_uploaded_if_asked_for(with_artifacts):
    assert {"masks", "model"} <= tracked(with_artifacts)["artifacts"]


@pytest.fixture
def fresh_wandb():
    """W&B without the process of the test before, and none left for the next."""
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.parametrize("place", ["init", "Run.log", "Run.finish"])
def test_wandb_that_fails_costs_no_result(place, tiny_folder, tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise wandb.errors.CommError("the service is down\nand more")

    monkeypatch.setattr(f"wandb.{place}", broken)
    record = run(tiny_job(tiny_folder, "tracking=offline"), tmp_path)
    assert read_record(tmp_path) == record
    assert caplog.text.count("the service is down") == 1 and "and more" not in caplog.text


def test_online_tracking_without_a_network_ends_in_a_warning(tiny_folder, tmp_path):
    job = (*SMALL, f"model.path={tiny_folder}", "tracking=online")
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "3"}
    done = statprune(*job, cwd=tmp_path, **away)
    assert done.returncode == 0 and len(records(tmp_path)) == 1, done.stderr
    assert "W&B could not be started" in done.stderr and "Traceback" not in done.stderr


def test_a_sweep_agent_chooses_the_id(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    config = tiny_job(tiny_folder, "tracking=offline")
    Tracker(config, tmp_path).finish({}, [], {})
    assert tracked(tmp_path)["id"] != run_id(config)


@pytest.fixture(scope="module")
def with_tasks(tmp_path_factory, lively_folder, tasks):
    """The zero-shot part of a run's record, and what W&B was sent as final numbers."""
    folder = tmp_path_factory.mktemp("with_tasks")
    record = run(evaluated(lively_folder, tasks, "tracking=offline"), folder)
    return record.zero_shot, tracked(folder)["summary"]


@pytest.mark.parametrize("name", ["alone", "pair", "shown", "plain"])
def test_wandb_gets_every_metric_of_every_task(name, with_tasks):
    zero_shot, summary = with_tasks
    task = zero_shot.tasks[name]
    for metric, value in task.pruned.items():
        assert summary[f"zero_shot/{name}/{metric}"] == value
        assert summary[f"zero_shot/{name}/{metric}_dense"] == task.dense[metric]


def test_wandb_gets_the_mean_accuracy(with_tasks):
    zero_shot, summary = with_tasks
    assert summary["zero_shot/mean/pruned"] == zero_shot.mean.pruned


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_skipped_run_that_was_tracked_offline_says_how_to_send_it(mode, tiny_folder, tmp_path):
    folder = tmp_path / "a run"
    (folder / "wandb" / "offline-run-20260101_000000-x").mkdir(parents=True)
    note = note_on_skipped(tiny_job(tiny_folder, f"tracking={mode}"), folder)
    assert note == f"W&B gets nothing new: send what the run wrote with `wandb sync '{folder}/wandb'/offline-run-*`"


def test_a_skipped_run_that_was_tracked_online_is_there_already(tiny_folder, tmp_path):
    (tmp_path / "wandb" / "run-20260101_000000-x").mkdir(parents=True)
    note = note_on_skipped(tiny_job(tiny_folder, "tracking=online"), tmp_path)
    assert note == "W&B gets nothing new: the run was sent when it ran"


def test_a_skipped_run_that_was_not_tracked_is_only_sent_when_it_is_run_again(tiny_folder, tmp_path):
    note = note_on_skipped(tiny_job(tiny_folder, "tracking=online"), tmp_path)
    assert note is not None and "only rerun=true tells it" in note


def test_a_skipped_run_without_tracking_says_nothing_of_it(tiny_folder, tmp_path):
    (tmp_path / "wandb" / "offline-run-20260101_000000-x").mkdir(parents=True)
    assert note_on_skipped(tiny_job(tiny_folder, "tracking=disabled"), tmp_path) is None


def test_wandb_is_told_project_entity_group_and_type(tiny_folder, tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(wandb, "init", lambda **options: told.update(options) or 1 / 0)
    keys = {"project": "own", "entity": "lab", "group": "first", "job_type": "try"}
    changes = [f"tracking.{key}={value}" for key, value in keys.items()]
    Tracker(tiny_job(tiny_folder, "tracking=offline", *changes), tmp_path, active=True)
    assert {key: told[key] for key in keys} == keys and told["mode"] == "offline"
