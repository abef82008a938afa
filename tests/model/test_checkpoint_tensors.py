"""Checkpoints are opened tensor by tensor, or what is wrong with their files is said in a sentence."""

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from statprune.errors import ModelError
from statprune.model.checkpoint_tensors import open_checkpoint

NAME = "model.layers.0.q.weight"


def pickled(folder, values):
    torch.save(values, folder / "pytorch_model.bin")
    return open_checkpoint(str(folder))


def test_what_is_no_tensor_in_a_file_of_torch_is_left_out(tmp_path):
    others = {"step": 3, "args": {"x": torch.ones(1)}, 0: torch.ones(2, 2)}
    assert list(pickled(tmp_path, {NAME: torch.ones(2, 2), **others}).readers) == [NAME]


def test_a_tensor_that_was_saved_without_values_is_named(tmp_path):
    found = pickled(tmp_path, {NAME: torch.empty(2, 2, device="meta")})
    with pytest.raises(ModelError, match=rf"pytorch_model.bin has {NAME} without its values; save the model anew"):
        found.readers[NAME]()


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_sparse_tensors_are_read_with_their_zeros(tmp_path):
    weight = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    found = pickled(tmp_path, {"csr": weight.to_sparse_csr(), "coo": weight.to_sparse()})
    assert all(torch.equal(read(), weight) for read in found.readers.values()) and len(found.readers) == 2


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"state_dict": {NAME: torch.ones(2)}, "epoch": 1}, "state_dict, epoch"),
        ([1, 2], "a list"),
        ({0: torch.ones(2)}, "0"),
    ],
)
def test_a_file_of_torch_that_has_its_tensors_elsewhere_says_so(values, held, tmp_path):
    with pytest.raises(ModelError, match=rf"pytorch_model.bin holds no tensors by name, but {held}; save the model's"):
        pickled(tmp_path, values)


def test_files_that_hold_nothing_are_refused(tmp_path):
    for name, values in (("model.safetensors", {}), ("pytorch_model.bin", {})):
        folder = tmp_path / name
        folder.mkdir()
        save_file(values, folder / name) if name.endswith("safetensors") else torch.save(values, folder / name)
        with pytest.raises(ModelError, match=f"{name} holds no tensors; get it again"):
            open_checkpoint(str(folder))


def shards(folder, weight_map):
    for name in ("a", "b"):
        save_file({name: torch.ones(2, 2)}, folder / f"model-{name}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return str(folder)


def test_an_index_that_names_no_tensor_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"index\.json has a weight_map that names no tensor; get it again"):
        open_checkpoint(shards(tmp_path, {}))


def test_files_of_tensors_that_are_no_part_of_the_checkpoint_are_named(tmp_path):
    found = open_checkpoint(shards(tmp_path, {"a": "model-a.safetensors"}))
    assert list(found.readers) == ["a"] and found.unread == ("model-b.safetensors",)
    torch.save({}, tmp_path / "training_args.bin")
    assert open_checkpoint(shards(tmp_path, {name: f"model-{name}.safetensors" for name in "ab"})).unread == ()
    torch.save({}, tmp_path / "pytorch_model.bin")
    save_file({"c": torch.ones(1)}, tmp_path / "model.safetensors")
    unread = ("model-a.safetensors", "model-b.safetensors", "pytorch_model.bin")
    assert open_checkpoint(str(tmp_path)).unread == unread


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_name_is_refused(path):
    with pytest.raises(ModelError, match="the model's name is empty; give a folder"):
        open_checkpoint(path)


def gguf_with(file, *tensors):
    writer = gguf.GGUFWriter(file, "llama")
    for number, (values, kind) in enumerate(tensors):
        writer.add_tensor(f"blk.{number}.x.weight", values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)


def test_integers_and_doubles_of_a_gguf_file_are_read_as_they_are(tmp_path):
    values = [np.arange(64).reshape(2, 32).astype(kind) for kind in (np.int8, np.int16, np.int32, np.int64, np.float64)]
    found = open_checkpoint(gguf_with(tmp_path / "own.gguf", *((own, None) for own in values)))
    for own, read in zip(values, found.readers.values(), strict=True):
        assert torch.equal(read(), torch.from_numpy(own))


def test_what_the_gguf_package_cant_decode_is_named(tmp_path):
    packed = np.zeros((2, 292), np.uint8), gguf.GGMLQuantizationType.Q8_K
    found = open_checkpoint(gguf_with(tmp_path / "own.gguf", packed))
    with pytest.raises(ModelError, match=r"can't decode Q8_K, which blk\.0\.x\.weight is stored as"):
        found.readers["blk.0.x.weight"]()


def test_a_gguf_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no tensors; get it again"):
        open_checkpoint(gguf_with(tmp_path / "own.gguf"))
