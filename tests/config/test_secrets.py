"""Secrets of the environment come into no configuration."""

import pytest

from statprune.config.secrets import is_secret
from tests.helpers.commands import problems_of

VALUE = "s3cret-0123456789"


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "my_secret"]
)
def test_names_of_secrets_are_known(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["HOME", "USER", "TOKENIZERS_PARALLELISM", "KEYBOARD", "SCRATCH", "WANDB_ENTITY"])
def test_other_names_are_no_secrets(name):
    assert not is_secret(name)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
@pytest.mark.parametrize(
    "override",
    [
        "model.path=${{oc.env:{name}}}/x",
        "name=${{oc.env:{name},nothing}}",
        "tracking.notes=${{oc.env:{name}}}",
        "tracking.notes='key {value}'",
        "tracking.tags=[{value}]",
        "name={value}",
        "hydra.run.dir=${{oc.env:{name}}}",
        "hydra.run.dir={value}",
        "+hydra.job.env_set.{name}=x",
        "hydra.job.env_copy=[{name}]",
    ],
)
def test_a_secret_is_refused_without_being_shown(override, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, VALUE)
    (problem,) = problems_of(override.format(name=name, value=VALUE))
    assert VALUE not in problem
    assert name in problem


def test_a_secret_in_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", VALUE)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "x.yaml").write_text(f"# @package _global_\ntracking:\n  notes: {VALUE}\n")
    (problem,) = problems_of("--config-dir", "mine", "experiment=x")
    assert "tracking.notes holds the value of HF_TOKEN" in problem and VALUE not in problem


def test_texts_for_wandb_are_not_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of("tracking.entity=${oc.env:USER,me}")
    assert "tracking.entity takes its text from the environment" in problem


def test_a_place_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert problems_of("cache=${oc.env:SCRATCH}/cache", "hydra.run.dir=${oc.env:SCRATCH}/run") == []
