"""Adapters and quantised weights are refused before anything is opened, each in one sentence."""

import json
import shutil

import pytest

from statprune.errors import ConfigError, ModelError
from statprune.model.foreign import foreign_problem
from statprune.model.loading import load_model
from tests.helpers.checkpoints import change_config
from tests.helpers.command import composed, statprune


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_an_adapter_beside_its_base_model_is_refused(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "meta/base"}))
    with pytest.raises(ModelError, match=r"an adapter for meta/base .* merge it first, .*merge_and_unload\(\)"):
        load_model(str(folder))


def test_a_folder_of_an_adapter_alone_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config\.json\)"):
        load_model(str(tmp_path))


def test_an_adapters_weights_without_its_configuration_are_refused(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_model\.safetensors\)"):
        load_model(str(folder))


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8"])
def test_a_configuration_of_quantised_weights_is_refused(folder, method):
    change_config(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelError, match=f"quantised by {method} .* only dense ones can be pruned"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_quantisers_own_file_is_refused(folder, name):
    (folder / name).write_text("{}")
    assert f"quantised ({name})" in foreign_problem("mine", folder)


def test_a_quantised_part_is_refused(folder):
    change_config(folder, text_config={"quantization_config": {"quant_method": "awq"}})
    assert "by awq" in foreign_problem("mine", folder)


def test_no_quantisation_is_none(folder):
    assert foreign_problem("mine", change_config(folder, quantization_config=None)) is None


def test_an_adapter_is_refused_with_the_configuration(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="merge it first"):
        composed(f"model.path={folder}")


def test_the_command_refuses_an_adapter_in_one_sentence(folder):
    (folder / "adapter_config.json").write_text("{}")
    done = statprune("model.path=model", cwd=folder.parent)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1 and "merge it first" in lines[0]
