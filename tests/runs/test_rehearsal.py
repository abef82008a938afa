"""What would keep a model from being saved is known before it is pruned."""

import json
import shutil

import pytest

from statprune.errors import ModelError
from statprune.model.saving import TokenizerError
from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from tests.helpers.command import tiny_job


def test_what_cant_be_saved_is_refused_before_pruning(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "dense")
    path = tmp_path / "dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"output_attentions": True}))
    with pytest.raises(ModelError, match=r"its configuration is refused \(.*attentions.*correct its config"):
        run(tiny_job(tmp_path / "dense", "save_model=true"), tmp_path / "run")
    assert not (tmp_path / "run" / "blocks.jsonl").exists()


def test_a_generation_configuration_that_is_refused_says_so(tiny_folder, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise ValueError("temperature without do_sample")

    monkeypatch.setattr("transformers.GenerationConfig.save_pretrained", refused)
    with pytest.raises(ModelError, match=r"its generation configuration is refused \(temperature without do_sample\)"):
        run(tiny_job(tiny_folder, "save_model=true"), tmp_path)


def test_a_disk_without_room_for_the_model_is_noticed_before_pruning(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelError, match=r"the pruned model takes 0\.\d\d MiB below .* 1\.0 KiB are free there; make"):
        run(tiny_job(tiny_folder, "save_model=true", "activations=host"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def test_a_tokenizer_that_fails_leaves_the_model(tiny_folder, tmp_path, monkeypatch):
    def failing(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("statprune.model.saving.copy_side_files", failing)
    with pytest.raises(TokenizerError, match=r"its tokenizer could not be \(.*No space left.*copy the tokenizer"):
        run(tiny_job(tiny_folder, "save_model=true"), tmp_path)
    assert (tmp_path / "model" / "model.safetensors").exists() and read_record(tmp_path).sparsity.achieved == 0.5
