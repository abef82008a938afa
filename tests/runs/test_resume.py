"""A run that pruned its model goes on where its evaluation failed or was killed."""

import json
import shutil

import pandas
import pytest

from statprune.errors import DataError, ModelError
from statprune.evaluation.zero_shot import ZeroShot
from statprune.runs.pipeline import run
from statprune.runs.record import Pending
from statprune.runs.store import UNSAVED, read_record
from statprune.runs.verdict import Complete, Run, verdict_on
from tests.helpers.command import statprune
from tests.helpers.tasks import choices, evaluated

KILLER = """
import os, pathlib, signal

def results(doc, results):
    if pathlib.Path("armed").exists() and any(pathlib.Path(".").glob("outputs/*/*/.pruned/config.json")):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"acc": float(max(results)[0] == results[doc["label"]][0])}
"""


def without_pruned_answers(patch):
    """Let the evaluation of every pruned model fail."""
    measure = ZeroShot.measure

    def failing(self, model, name):
        if name == "pruned":
            raise DataError("the disk of the tasks went away")
        return measure(self, model, name)

    patch.setattr(ZeroShot, "measure", failing)


@pytest.fixture(scope="module")
def interrupted(lively_folder, tasks, tmp_path_factory):
    """Folders of runs whose evaluation failed after pruning, by ``save_model``."""
    base = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        without_pruned_answers(patch)
        for save in ("false", "true"):
            with pytest.raises(DataError, match="went away"):
                run(evaluated(lively_folder, tasks, f"save_model={save}"), base / save)
    return {save: base / save for save in ("false", "true")}


@pytest.mark.parametrize(("save", "place"), [("false", UNSAVED), ("true", "model")])
def test_a_failed_evaluation_leaves_a_pending_record_and_the_pruned_model(save, place, interrupted):
    assert read_record(interrupted[save]).pending == Pending("zero_shot", place)
    assert json.loads((interrupted[save] / "result.json").read_text())["pending"] == {
        "evaluation": "zero_shot",
        "model": place,
    }
    assert (interrupted[save] / place / "config.json").exists()


@pytest.mark.parametrize("save", ["false", "true"])
def test_a_failed_evaluation_costs_no_measurement_that_was_made(save, interrupted, measured):
    record, whole = read_record(interrupted[save]), measured[0]
    assert record.perplexity == whole.perplexity
    assert record.zero_shot.mean.dense == whole.zero_shot.mean.dense


@pytest.mark.parametrize("save", ["false", "true"])
def test_accuracies_of_the_pruned_model_are_unknown_until_it_is_evaluated(save, interrupted):
    assert read_record(interrupted[save]).zero_shot.mean.pruned is None


# whether the first attempt saves the model, and whether the second one does
ATTEMPTS = {
    "unsaved": ("false", "false"),
    "saved": ("true", "true"),
    "saved later": ("false", "true"),
    "documents damaged": ("true", "true"),
}


@pytest.fixture(params=ATTEMPTS)
def completed(request, interrupted, lively_folder, tasks, tmp_path):
    """A run that was taken up after its evaluation failed: record, folder, ``save_model`` and when it was pruned."""
    first, later = ATTEMPTS[request.param]
    shutil.copytree(interrupted[first], tmp_path, dirs_exist_ok=True)
    pruned_at = (tmp_path / "blocks.jsonl").stat().st_mtime_ns
    if request.param == "documents damaged":
        (tmp_path / "documents.parquet").write_bytes(b"half")
    config = evaluated(lively_folder, tasks, f"save_model={later}")
    verdict = verdict_on(config, tmp_path)
    assert isinstance(verdict, Complete)
    return run(config, tmp_path, pending=verdict.record), tmp_path, later == "true", pruned_at


def test_a_completed_run_has_the_numbers_of_one_that_did_not_fail(completed, measured):
    record, folder, _, _ = completed
    assert record.pending is None
    assert (record.perplexity, record.zero_shot) == (measured[0].perplexity, measured[0].zero_shot)
    written = read_record(folder)
    assert (written.perplexity, written.zero_shot, written.pending) == (record.perplexity, record.zero_shot, None)


def test_a_completed_run_has_the_answers_of_one_that_did_not_fail(completed, measured):
    tables = [pandas.read_parquet(folder / "documents.parquet") for folder in (completed[1], measured[1])]
    assert tables[0].equals(tables[1])


def test_a_completed_run_is_not_pruned_again(completed):
    _, folder, _, pruned_at = completed
    assert (folder / "blocks.jsonl").stat().st_mtime_ns == pruned_at


def test_a_completed_run_saves_its_model_only_if_asked_to(completed):
    _, folder, is_saved, _ = completed
    assert (folder / "model" / "README.md").exists() is is_saved
    assert not (folder / UNSAVED).exists()


@pytest.fixture
def without_model(lively_folder, tasks, tmp_path, monkeypatch):
    """The configuration of a run in ``tmp_path`` that could not write its pruned model, and whose evaluation failed."""

    def full(loaded, folder):
        raise OSError("the disk is full")

    monkeypatch.setattr("statprune.runs.pipeline.save_model", full)
    without_pruned_answers(monkeypatch)
    config = evaluated(lively_folder, tasks)
    with pytest.raises(DataError):
        run(config, tmp_path)
    return config


@pytest.mark.usefixtures("without_model")
def test_a_pending_record_says_that_the_pruned_model_could_not_be_written(tmp_path):
    assert read_record(tmp_path).pending == Pending("zero_shot", None)


def test_a_pending_run_without_its_model_is_run_again(without_model, tmp_path):
    assert isinstance(verdict_on(without_model, tmp_path), Run)


def test_a_pruned_model_that_cant_be_opened_is_an_error(interrupted, lively_folder, tasks, tmp_path):
    shutil.copytree(interrupted["false"], tmp_path, dirs_exist_ok=True)
    (tmp_path / UNSAVED / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't be opened"):
        run(evaluated(lively_folder, tasks), tmp_path, pending=read_record(tmp_path))


@pytest.fixture(scope="module")
def killed(lively_folder, tmp_path_factory):
    """The folder of a run that was killed in its evaluation, and the same command a second and a third time."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "tasks").mkdir()
    choices("deadly", folder / "tasks", 6)
    (folder / "tasks" / "killer.py").write_text(KILLER)
    path = folder / "tasks" / "deadly.yaml"
    path.write_text(path.read_text() + "process_results: !function killer.results\n")
    changes = [
        "evaluation=full",
        "evaluation.tasks=./tasks",
        "evaluation.trust_task_code=true",
        f"model.path={lively_folder}",
        "calibration.samples=4",
    ]
    changes += ["calibration.seq_len=32", "evaluation.max_windows=4", "tracking=disabled"]
    (folder / "armed").touch()
    assert statprune(*changes, cwd=folder).returncode == -9
    (folder / "armed").unlink()
    second = statprune(*changes, cwd=folder)
    (run_folder,) = folder.glob("outputs/default/*")
    return run_folder, second, statprune(*changes, cwd=folder)


def test_a_killed_evaluation_goes_on_from_the_pruned_model(killed):
    _, second, _ = killed
    assert second.returncode == 0, second.stderr
    assert "which is not pruned again" in second.stderr and "deadly" in second.stdout


def test_a_killed_evaluation_ends_in_a_whole_record(killed):
    record = read_record(killed[0])
    assert record.pending is None and record.zero_shot.tasks["deadly"].pruned["acc"] is not None
    assert not (killed[0] / UNSAVED).exists()


def test_a_killed_run_that_was_finished_is_skipped(killed):
    _, _, third = killed
    assert third.returncode == 0 and "finished already" in third.stderr
