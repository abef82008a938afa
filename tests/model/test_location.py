"""What a model path is called."""

import pytest

from statprune.model.location import model_name

RUN = "tiny_bundled_0.5_wanda_none_s0_alpha=0.25_1a2b3c4d"


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
