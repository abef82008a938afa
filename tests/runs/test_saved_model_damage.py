"""A run whose saved model was damaged is not finished: the same command prunes again, or says what is wrong."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from statprune.runs.job import carry_out, model_problem
from statprune.runs.ledger import JobState
from statprune.runs.own_model import MARKER
from statprune.runs.verdict import Run, Skip, verdict_on
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job

SAVES = ("save_model=true", "evaluation=none")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tiny_folder, tmp_path_factory) -> Path:
    """The folder of a finished run with its model."""
    folder = tmp_path_factory.mktemp("saved")
    assert done(tiny_folder, folder).state is JobState.FINISHED
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def done(tiny_folder, folder):
    composed = OmegaConf.create(tiny_job(tiny_folder, *SAVES).resolved())
    return carry_out(composed, folder, Workbench(holds_model=False), others_follow=False)


def missing(weights):
    weights.unlink()


def cut_off(weights):
    weights.write_bytes(weights.read_bytes()[:-100])


def emptied(weights):
    weights.write_bytes(b"")


def flipped(weights):
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)


def without_tokenizer(weights):
    weights.with_name("tokenizer.json").unlink()


@pytest.mark.parametrize("harm", [missing, cut_off, emptied, without_tokenizer], ids=lambda harm: harm.__name__)
def test_a_run_whose_saved_model_is_not_whole_is_run_again(harm, copy, tiny_folder):
    harm(copy / "model" / WEIGHTS)
    job = tiny_job(tiny_folder, *SAVES)
    verdict = verdict_on(job, copy)
    assert isinstance(verdict, Run) and f"the model saved in {copy} is damaged" in verdict.because
    assert model_problem(job, copy) is None


def test_a_model_that_was_cut_off_is_pruned_again_to_the_same_bits(saved, copy, tiny_folder):
    cut_off(copy / "model" / WEIGHTS)
    assert done(tiny_folder, copy).state is JobState.FINISHED
    assert (copy / "model" / WEIGHTS).read_bytes() == (saved / "model" / WEIGHTS).read_bytes()


def test_a_run_whose_saved_weights_were_changed_is_not_finished_and_they_stay(copy, tiny_folder):
    weights = copy / "model" / WEIGHTS
    flipped(weights)
    changed = weights.read_bytes()
    verdict = verdict_on(tiny_job(tiny_folder, *SAVES), copy)
    assert isinstance(verdict, Run) and f"model/{WEIGHTS} is not what the run wrote" in verdict.because
    outcome = done(tiny_folder, copy)  # somebody may have trained them
    assert outcome.state is JobState.FAILED and "move it away" in outcome.reasons[0]
    assert weights.read_bytes() == changed


def test_a_card_that_was_edited_or_removed_costs_nothing(copy, tiny_folder):
    card = copy / "model" / "README.md"
    card.write_text("ours")
    assert isinstance(verdict_on(tiny_job(tiny_folder, *SAVES), copy), Skip)
    card.unlink()
    assert isinstance(verdict_on(tiny_job(tiny_folder, *SAVES), copy), Skip)


def test_without_the_list_of_files_a_missing_shard_is_noticed(copy, tiny_folder):
    (copy / MARKER).unlink()
    assert isinstance(verdict_on(tiny_job(tiny_folder, *SAVES), copy), Skip)
    missing(copy / "model" / WEIGHTS)
    assert isinstance(verdict_on(tiny_job(tiny_folder, *SAVES), copy), Run)
