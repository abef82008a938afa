"""A user's own model is never removed; a run's own one goes when the run is repeated."""

import json
import shutil
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from statprune.errors import StatpruneError
from statprune.runs import own_model
from statprune.runs.earlier_run import model_problem, remove_own_model
from statprune.runs.job import carry_out
from statprune.runs.ledger import JobState
from statprune.runs.model_card import model_card
from statprune.runs.store import MODEL, UNSAVED
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job
from tests.helpers.runs import recorded


def written(run, name=MODEL):
    """The run's folder with a model that the run wrote."""
    run.mkdir(exist_ok=True)
    model = own_model.begin(run, name)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    own_model.complete(run, name, {})
    return run


def copied(run, mine):
    mine.mkdir()
    shutil.copytree(run / MODEL, mine / MODEL)
    return mine


def copied_over_ours(run, mine):
    """The user has put another model in the place of the run's."""
    written(mine)
    shutil.rmtree(mine / MODEL)
    shutil.copytree(run / MODEL, mine / MODEL)
    (mine / MODEL / "model.safetensors").write_bytes(b"trained")
    return mine


def with_notes(run, mine):
    (written(mine) / MODEL / "notes.txt").touch()
    return mine


def linked(run, mine):
    mine.mkdir()
    (mine / MODEL).symlink_to(run / MODEL)
    return mine


def linked_run(run, mine):
    mine.symlink_to(run)
    return mine


def with_a_linked_file(run, mine):
    weights = written(mine) / MODEL / "model.safetensors"
    weights.unlink()
    weights.symlink_to(run / MODEL / "model.safetensors")
    return mine


USERS = [copied, copied_over_ours, with_notes, linked, linked_run, with_a_linked_file]


@pytest.mark.parametrize("make", USERS, ids=lambda make: make.__name__)
def test_a_users_model_is_never_removed(make, tiny_folder, tmp_path):
    mine = make(written(tmp_path / "run"), tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    problem = model_problem(tiny_job(tiny_folder, "save_model=true"), mine)
    assert str(mine / MODEL) in problem and "would be lost; move it away, or give another hydra.run.dir" in problem
    remove_own_model(tiny_job(tiny_folder), mine)
    with pytest.raises(StatpruneError, match="move it away"):
        own_model.begin(mine, MODEL)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_models_copy_stays_when_a_job_runs_beside_it(tiny_folder, tmp_path):
    mine = copied(written(tmp_path / "run"), tmp_path / "mine")
    outcome = carry_out(
        OmegaConf.create(tiny_job(tiny_folder).resolved()), mine, Workbench(holds_model=False), others_follow=False
    )
    assert outcome.state is JobState.FINISHED and (mine / MODEL / "model.safetensors").read_bytes() == b"weights"
    assert model_problem(tiny_job(tiny_folder), mine) is None


@pytest.mark.parametrize(
    "how", [shutil.copytree, shutil.move, lambda run, to: shutil.copytree(run, to, copy_function=shutil.copyfile)]
)
def test_a_run_that_was_copied_still_owns_its_model(how, tiny_folder, tmp_path):
    how(written(tmp_path / "run"), tmp_path / "moved")
    assert model_problem(tiny_job(tiny_folder, "save_model=true"), tmp_path / "moved") is None
    remove_own_model(tiny_job(tiny_folder), tmp_path / "moved")
    assert not list((tmp_path / "moved").iterdir())


def test_what_a_killed_run_wrote_is_its_own(tiny_folder, tmp_path):
    (own_model.begin(tmp_path, MODEL) / "model.safetensors").touch()
    remove_own_model(tiny_job(tiny_folder), tmp_path)
    assert not (tmp_path / MODEL).exists()


def test_a_card_that_was_not_listed_yet_is_the_runs_own(tmp_path):
    record = recorded("plain")
    (written(tmp_path) / MODEL / "README.md").write_text(model_card(record))
    assert own_model.owns(tmp_path, MODEL, record)


@pytest.mark.parametrize("config_hash", ["own", "another"])
def test_a_model_of_an_older_version_is_known_by_its_card(config_hash, tmp_path):
    record = recorded("plain")
    (tmp_path / MODEL).mkdir()
    (tmp_path / MODEL / "config.json").touch()
    (tmp_path / MODEL / "README.md").write_text(model_card(record))
    (tmp_path / own_model.MARKER).touch()
    if config_hash == "another":
        record = replace(record, config_hash="0123456789")
    assert own_model.owns(tmp_path, MODEL, record) is (config_hash == "own")
    assert own_model.was_written(tmp_path, MODEL, record) is (config_hash == "own")


def test_a_damaged_kept_model_is_still_the_runs_own(tmp_path):
    (written(tmp_path, UNSAVED) / UNSAVED / "model.safetensors").write_bytes(b"half")
    assert own_model.owns(tmp_path, UNSAVED, None)
    (tmp_path / UNSAVED / "notes.txt").touch()
    assert not own_model.owns(tmp_path, UNSAVED, None)


def test_the_model_that_is_read_is_not_overwritten(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / MODEL)
    own_model.complete(tmp_path, MODEL, {})
    problem = model_problem(tiny_job(tmp_path / MODEL, "save_model=true"), tmp_path)
    assert "model holds the model that is read, and would be overwritten; give another hydra.run.dir" in problem


def test_the_marker_holds_no_path_of_the_run(tmp_path):
    written(tmp_path)
    own_model.renamed(tmp_path, MODEL, UNSAVED)
    marks = json.loads((tmp_path / own_model.MARKER).read_text())
    assert list(marks) == [UNSAVED] and sorted(marks[UNSAVED]["files"]) == ["config.json", "model.safetensors"]
    assert str(tmp_path) not in json.dumps(marks)
