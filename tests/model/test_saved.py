"""A saved model is compared with the memory, and keeps the checkpoint's own dtypes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from statprune.core.methods import get_method
from statprune.core.patterns import NofM
from statprune.errors import ModelError
from statprune.model.loading import load_model
from statprune.model.saved import check_saved, expect
from statprune.model.saving import save_model
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from tests.helpers.loading import saved
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A bfloat16 checkpoint whose norms are float32, with a processor and a licence; as files, .bin and legacy .bin."""
    folder = saved(tiny_llama().bfloat16(), tmp_path_factory.mktemp("mixed") / "dense")
    state = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    state |= {name: torch.rand(32) + 0.5 for name in state if "norm" in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("preprocessor_config.json", "LICENSE"):
        (folder / name).write_text("{}")
    binary = shutil.copytree(folder, folder.parent / "binary")
    torch.save(state, binary / "pytorch_model.bin")
    (binary / "model.safetensors").unlink()
    legacy = shutil.copytree(binary, folder.parent / "legacy")
    torch.save(state, legacy / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as torch did before 1.6
    return folder


def pruned(dense, folder, offload="none", dtype="auto"):
    """What is saved of the pruned model, by name, and what was compared."""
    opened = load_model(str(dense), dtype, offload=offload, folder=folder)
    prune(opened, random_windows(4, 16), PruneSpec(get_method("wanda"), NofM(2, 4)))
    result = save_model(opened, folder)
    opened.close()
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors, result


@pytest.mark.parametrize(
    ("kind", "offload"),
    [("dense", "none"), ("dense", "cpu"), ("dense", "disk"), ("binary", "none"), ("legacy", "none"), ("legacy", "cpu")],
)
def test_tensors_keep_the_checkpoints_own_dtype(kind, offload, mixed, tmp_path):
    tensors, result = pruned(mixed.parent / kind, tmp_path / "pruned", offload)
    source = load_file(mixed / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {name: own.dtype for name, own in source.items()}
    unpruned = [name for name in source if "proj" not in name]
    assert all(torch.equal(tensors[name], source[name]) for name in unpruned) and len(unpruned) == 9
    assert (result.tensors, result.own_dtype) == (len(source), 7)
    assert result.bytes == sum(tensor.nbytes for tensor in source.values())


def test_an_explicit_dtype_is_that_of_every_tensor(mixed, tmp_path):
    tensors, result = pruned(mixed, tmp_path / "pruned", dtype="float32")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32} and result.own_dtype == 0


def test_processors_and_licences_come_along(mixed, tmp_path):
    pruned(mixed, tmp_path / "pruned")
    assert (tmp_path / "pruned" / "preprocessor_config.json").exists() and (tmp_path / "pruned" / "LICENSE").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["a"].add_(1), "the tensor a in .* is not the one in memory"),
        (lambda state: state.pop("a"), "lacks the tensor a of the model in memory"),
        (lambda state: state.update(c=torch.ones(1)), "holds the tensor c, which the model in memory does not have"),
        (lambda state: state.update(a=torch.ones(4)), "the tensor a in .* is not the one in memory"),
    ],
)
def test_a_tensor_that_is_not_the_one_in_memory_is_an_error(change, message, tmp_path):
    memory = {"a": torch.ones(2, 2), "b": torch.tensor(torch.nan)}
    state = {name: tensor.clone() for name, tensor in memory.items()}
    save_file(state, tmp_path / "model.safetensors")
    assert check_saved(tmp_path, expect(memory)).tensors == 2
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        check_saved(tmp_path, expect(memory))
