"""Whether a job is carried out, completed, skipped or refused."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import yaml

from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from statprune.runs.record import Pending, RunRecord
from statprune.runs.store import finish_record, read_record, write_record
from statprune.runs.verdict import Complete, Refused, Run, Skip, verdict_on
from tests.helpers.command import tiny_job


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory, tiny_folder):
    """The folder of a finished run that saved its model."""
    folder = tmp_path_factory.mktemp("saved_run")
    run(tiny_job(tiny_folder, "save_model=true"), folder)
    return folder


@pytest.fixture
def finished(saved_run, tmp_path):
    """A copy of the run's folder, without the model."""
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model"))
    return tmp_path


def test_a_job_without_a_record_is_run(tmp_path, tiny_folder):
    assert verdict_on(tiny_job(tiny_folder), tmp_path) == Run()


def test_a_finished_job_is_skipped_with_its_record(finished, tiny_folder):
    record = RunRecord.from_json(json.loads((finished / "result.json").read_text()))
    assert verdict_on(tiny_job(tiny_folder), finished) == Skip(record)


def test_a_finished_job_is_run_where_that_is_asked_for(finished, tiny_folder):
    assert verdict_on(tiny_job(tiny_folder, "rerun=true"), finished) == Run()


def test_a_finished_job_is_run_where_its_model_is_still_to_be_saved(finished, tiny_folder):
    verdict = verdict_on(tiny_job(tiny_folder, "save_model=true"), finished)
    assert verdict == Run(f"{finished} is finished, but its model was not saved: it is run again")


def test_a_finished_job_whose_model_is_saved_is_skipped(saved_run, tiny_folder):
    assert verdict_on(tiny_job(tiny_folder, "save_model=true"), saved_run) == Skip(read_record(saved_run))


def test_a_job_of_another_configuration_is_refused_with_the_differing_keys(finished, tiny_folder):
    verdict = verdict_on(tiny_job(tiny_folder, "seed=3", "calibration.samples=3"), finished)
    assert isinstance(verdict, Refused)
    assert "differing keys: calibration.samples, seed" in verdict.reason


def test_a_damaged_record_is_an_error(finished, tiny_folder):
    text = (finished / "result.json").read_text()
    (finished / "result.json").write_text(text[:-9])
    with pytest.raises(StatpruneError, match=r"can't be read .* delete it, or give rerun=true"):
        verdict_on(tiny_job(tiny_folder), finished)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff{}", b'{"config_hash": '])
def test_a_record_that_is_no_json_is_replaced_by_the_command_that_the_run_began_with(content, finished, tiny_folder):
    (finished / "result.json").write_bytes(content)
    (finished / ".hydra").mkdir()
    config = tiny_job(tiny_folder)
    (finished / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config.resolved()))
    assert verdict_on(config, finished) == Run(f"the record in {finished} is damaged: it is run again")
    with pytest.raises(StatpruneError, match="can't be read"):
        verdict_on(tiny_job(tiny_folder, "seed=3"), finished)


@pytest.mark.parametrize("begun", [b"", b"- 1", b"seed: [", b"\xff", b"seed: ${nope}", b"seed: 0"])
def test_a_record_that_is_no_json_stays_where_nobody_can_tell_whose_it_is(begun, finished, tiny_folder):
    (finished / "result.json").write_bytes(b"{")
    (finished / ".hydra").mkdir()
    (finished / ".hydra" / "config.yaml").write_bytes(begun)
    with pytest.raises(StatpruneError, match="can't be read"):
        verdict_on(tiny_job(tiny_folder), finished)


def test_a_damaged_record_can_be_replaced(finished, tiny_folder):
    (finished / "result.json").write_text("{")
    assert verdict_on(tiny_job(tiny_folder, "rerun=true"), finished) == Run()


def test_a_run_whose_perplexity_is_not_finite_is_skipped_like_others(finished, tiny_folder):
    record = read_record(finished)
    record.perplexity["bundled"] = replace(record.perplexity["bundled"], pruned=math.inf)
    finish_record(finished, record, is_saved=False)
    verdict = verdict_on(tiny_job(tiny_folder), finished)
    assert isinstance(verdict, Skip) and verdict.record.perplexity["bundled"].pruned is None


def test_a_pending_job_is_completed_where_its_pruned_model_is_there(saved_run, tmp_path, tiny_folder):
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)
    pending = replace(read_record(tmp_path), pending=Pending("zero_shot", "model"))
    write_record(tmp_path, pending)
    assert verdict_on(tiny_job(tiny_folder), tmp_path) == Complete(read_record(tmp_path))


@pytest.mark.parametrize("model", ["model", None])
def test_a_pending_job_is_run_where_its_pruned_model_is_not_there(model, finished, tiny_folder):
    write_record(finished, replace(read_record(finished), pending=Pending("zero_shot", model)))
    verdict = verdict_on(tiny_job(tiny_folder), finished)
    assert verdict == Run(
        f"{finished} was not evaluated to its end, and its pruned model is not there: it is run again"
    )
