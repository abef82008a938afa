"""Damaged, truncated and missing files of a checkpoint, each told in a sentence that names the file."""

import json

import pytest
import torch
from safetensors.torch import save_file

from statprune.errors import ModelError
from statprune.model.loading import load_model
from statprune.model.stored import read_stored
from tests.helpers.models import tiny_llama, tiny_tokenizer

INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "model"
    tiny_llama().save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def second(folder):
    return sorted(folder.glob("model-*.safetensors"))[1]


def refusal(folder, offload="none") -> str:
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), offload=offload, folder=folder.parent / "new")
    return str(caught.value)


def test_headers_tell_names_shapes_and_dtypes(shards):
    stored = read_stored(shards)
    assert stored.numel == sum(parameter.numel() for parameter in tiny_llama().parameters())
    tensor = stored.tensors["model.layers.0.mlp.up_proj.weight"]
    assert (tensor.shape, tensor.dtype, stored.longest) == ((48, 32), "F32", 97)


def test_shards_are_opened(shards):
    load_model(str(shards)).close()


@pytest.mark.parametrize("offload", ["none", "disk"])
def test_a_missing_shard_is_named(shards, offload):
    second(shards).unlink()
    told = refusal(shards, offload)
    assert f"{INDEX} names model-00002-of-00007.safetensors for model.layers.0." in told
    assert " and 1 more, and that file is not there" in told


@pytest.mark.parametrize("offload", ["none", "disk"])
@pytest.mark.parametrize("keep", [-100, 5, 0])
def test_a_truncated_shard_is_named(shards, offload, keep):
    path = second(shards)
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is damaged or not whole" in refusal(shards, offload)


def test_a_pointer_to_a_file_is_told_from_the_file(shards):
    second(shards).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "run git lfs pull" in refusal(shards)


@pytest.mark.parametrize("text", ['{"weight_map": {', "[]", "{}", '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_named(shards, text):
    (shards / INDEX).write_text(text)
    assert INDEX in refusal(shards) and "KeyError" not in refusal(shards)


def test_a_tensor_that_only_the_index_has_is_named(shards):
    index = json.loads((shards / INDEX).read_text())
    index["weight_map"]["ghost"] = second(shards).name
    (shards / INDEX).write_text(json.dumps(index))
    assert f"{INDEX} names tensors that its files don't hold: ghost" in refusal(shards)


def test_a_tensor_in_two_shards_is_named(shards):
    index = json.loads((shards / INDEX).read_text())
    index["weight_map"]["again"] = "again.safetensors"
    (shards / INDEX).write_text(json.dumps(index))
    save_file({"again": torch.ones(1), "model.norm.weight": torch.zeros(32)}, shards / "again.safetensors")
    assert "both hold model.norm.weight" in refusal(shards)


def test_a_truncated_pickled_checkpoint_is_named(shards):
    for path in shards.glob("model*"):
        path.unlink()
    path = shards / "pytorch_model.bin"
    torch.save(tiny_llama().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path} is damaged or not whole" in refusal(shards)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\x03\x00\x00\x00" + 2 * b"\x01\x00\x00\x00\x00\x00\x00\x00", "damaged or not whole"),
        (b"", "damaged or not whole"),
        (b"version https://git-lfs.github.com/spec/v1", "run git lfs pull"),
    ],
    ids=["truncated", "empty", "pointer"],
)
def test_a_damaged_gguf_file_is_named(content, message, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(path))
    assert f"{path} is damaged" in str(caught.value) and "copy or download it again" in str(caught.value)
