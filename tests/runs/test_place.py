"""A finished run is found under the names that other versions gave its folder."""

import shutil

import pytest
from omegaconf import OmegaConf

from statprune.runs.job import carry_out
from statprune.runs.ledger import JobState
from statprune.runs.pipeline import run
from statprune.runs.place import place_of
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job

TODAY = "model_bundled_0.5_cvr_energy_s0_alpha=0.25_1a2b3c4d"
OLDER = ("model_bundled_0.5_cvr_energy_s0_1a2b3c4d", "model_bundled_0.5_cvr_energy_s0_method.alpha=0.25_1a2b3c4d")


@pytest.fixture(scope="module")
def config(tiny_folder):
    return tiny_job(tiny_folder, "method.alpha=0.25")


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    run(config, folder)
    return folder


def test_a_run_that_nobody_began_lives_in_the_folder_of_its_name(config, tmp_path):
    assert place_of(config, tmp_path / TODAY) == tmp_path / TODAY


@pytest.mark.parametrize("name", OLDER)
def test_a_run_lives_where_it_was_finished(name, config, finished, tmp_path):
    shutil.copytree(finished, tmp_path / name)
    assert place_of(config, tmp_path / TODAY) == tmp_path / name


def test_a_record_under_todays_name_counts(config, finished, tmp_path):
    for name in (OLDER[0], TODAY):
        shutil.copytree(finished, tmp_path / name)
    assert place_of(config, tmp_path / TODAY) == tmp_path / TODAY


def test_another_run_in_the_older_folder_is_not_this_one(finished, tiny_folder, tmp_path):
    shutil.copytree(finished, tmp_path / OLDER[0])
    other = tiny_job(tiny_folder, "method.alpha=0.5")
    assert place_of(other, tmp_path / TODAY) == tmp_path / TODAY


def test_a_damaged_record_in_the_older_folder_is_nobodys(config, tmp_path):
    (tmp_path / OLDER[0]).mkdir()
    (tmp_path / OLDER[0] / "result.json").write_text("{")
    assert place_of(config, tmp_path / TODAY) == tmp_path / TODAY


def test_an_evaluation_of_a_saved_model_that_was_called_model_is_found(tiny_folder, tmp_path):
    saved = tmp_path / "tiny_s0" / "model"
    shutil.copytree(tiny_folder, saved)
    config = tiny_job(saved, "method=dense")
    run(config, tmp_path / "model_bundled_dense_dense_none_s0_1a2b3c4d")
    place = place_of(config, tmp_path / "tiny_s0_bundled_dense_dense_none_s0_evaluation=full_1a2b3c4d")
    assert place.name == "model_bundled_dense_dense_none_s0_1a2b3c4d"


def test_a_job_that_was_finished_under_an_older_name_is_skipped(config, finished, tmp_path):
    shutil.copytree(finished, tmp_path / OLDER[0])
    composed = OmegaConf.create(config.resolved())
    outcome = carry_out(composed, tmp_path / TODAY, Workbench(holds_model=False), others_follow=False)
    assert (outcome.state, outcome.folder) == (JobState.SKIPPED, tmp_path / OLDER[0])
    assert outcome.record is not None and not (tmp_path / TODAY).exists()
