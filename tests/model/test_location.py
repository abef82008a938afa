"""What a model path is called, and what is wrong with one as far as it shows without opening the model."""

import shutil

import pytest

from statprune.model.location import is_hub_id, model_name, model_path_problem

RUN = "tiny_bundled_0.5_wanda_none_s0_alpha=0.25_1a2b3c4d"


@pytest.fixture
def bare(tiny_folder, tmp_path):
    """A folder with a model's configuration and weights, and no tokenizer."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_folder / name, tmp_path / name)
    return tmp_path


def test_a_folder_without_a_tokenizer_is_a_problem_that_says_what_to_do(bare):
    problem = model_path_problem(str(bare))
    assert problem is not None and problem.startswith(f"model.path={bare} holds a model without a tokenizer; copy ")
    assert "save_pretrained" in problem


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "qwen.tiktoken", "tekken.json"]
)
def test_a_folder_with_a_file_of_any_tokenizer_is_no_problem(name, bare):
    (bare / name).touch()
    assert model_path_problem(str(bare)) is None


def test_a_folder_of_a_model_with_its_tokenizer_is_no_problem(tiny_folder):
    assert model_path_problem(str(tiny_folder)) is None


def test_a_list_of_special_tokens_is_no_tokenizer(bare):
    (bare / "special_tokens_map.json").touch()
    assert model_path_problem(str(bare)) is not None


def test_a_hub_id_is_left_to_the_hub():
    assert model_path_problem("facebook/opt-125m") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("meta-llama/Llama-2-7b-hf", "Llama-2-7b-hf"),
        ("pkg://package/SmolLM2.gguf", "SmolLM2.gguf"),
        ("/my/mistral", "mistral"),
        ("/my/model", "model"),
        ("somebody/model", "model"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_path(path, name):
    assert model_name(path) == name


@pytest.mark.parametrize("path", ["{}/model", "{}/model/", "./{}/model", "/elsewhere/{}/model"])
def test_a_model_that_a_run_saved_has_the_runs_name(path):
    assert model_name(path.format(RUN)) == RUN


def test_other_folders_of_a_run_have_their_own_names():
    assert model_name(f"{RUN}/other") == "other"


def test_a_run_is_known_by_its_record_whatever_its_name(tmp_path, monkeypatch):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    assert model_name(str(tmp_path / "mine" / "model")) == "model"
    (tmp_path / "mine" / "result.json").touch()
    assert model_name(str(tmp_path / "mine" / "model")) == "mine"
    monkeypatch.chdir(tmp_path / "mine")
    assert model_name("model") == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_name("~/mine/model") == "mine"


@pytest.mark.parametrize("path", ["~/model", "./model", "../model", "/model", "pkg://package/file", "model", "a/b/c"])
def test_a_local_path_is_no_hub_id(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id(path)


def test_a_folder_that_is_here_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("owner/name")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")
