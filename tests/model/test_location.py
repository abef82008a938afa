"""What is wrong with a model's path, as far as it shows without opening the model."""

import shutil

import pytest

from statprune.model.location import model_path_problem


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
