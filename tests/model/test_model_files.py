"""Which files a model is read from, and the commit of one of the hub's."""

import json

import pytest
from huggingface_hub import constants

from statprune.model.model_files import hub_commit, model_files


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "model"
    own.mkdir()
    for name in (
        "config.json",
        "tokenizer.json",
        "merges.txt",
        "spiece.model",
        "modeling_own.py",
        "chat_template.jinja",
    ):
        (own / name).write_text("{}")
    return own


def test_configuration_tokenizer_code_and_weights_are_read(folder):
    (folder / "model.safetensors").touch()
    assert set(model_files(str(folder))) == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["README.md", ".gitattributes", "notes.txt", "pytorch_model.bin"])
def test_other_files_are_not(name, folder):
    (folder / "model.safetensors").touch()
    (folder / name).touch()
    assert name not in model_files(str(folder))


def test_weights_of_an_older_kind_are_read_where_there_are_no_others(folder):
    (folder / "pytorch_model.bin").touch()
    assert "pytorch_model.bin" in model_files(str(folder))


def test_a_single_file_is_itself(tmp_path):
    (tmp_path / "model.gguf").touch()
    assert model_files(str(tmp_path / "model.gguf")) == {"model.gguf": tmp_path / "model.gguf"}


def test_the_base_model_of_an_adapter_is_read_too(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    assert set(model_files(str(adapter))) == {"adapter_config.json", *(str(path) for path in folder.iterdir())}


@pytest.mark.parametrize("path", ["", "some/model", "/nowhere/at/all"])
def test_what_is_not_here_has_no_files(path):
    assert model_files(path) == {}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The hub's cache of a model, in whose branch main the commit is set by the function."""

    def set_main(commit):
        base = tmp_path / "models--some--model"
        (base / "snapshots" / commit).mkdir(parents=True)
        (base / "snapshots" / commit / "config.json").write_text("{}")
        (base / "refs").mkdir(exist_ok=True)
        (base / "refs" / "main").write_text(commit)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    return set_main


def test_the_commit_of_a_cached_model_is_that_of_its_branch(cached):
    assert hub_commit("some/model", None) is None
    cached("a" * 40)
    assert hub_commit("some/model", None) == "a" * 40 == hub_commit("some/model", "main")
    cached("b" * 40)
    assert hub_commit("some/model", None) == "b" * 40


def test_a_local_model_has_no_commit(folder):
    assert (
        hub_commit(str(folder), None) is None and hub_commit("", None) is None and hub_commit("a b/c/d", None) is None
    )
