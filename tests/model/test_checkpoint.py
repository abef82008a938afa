"""Checkpoints that are read and written block by block."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import ApertusConfig, ApertusForCausalLM, AutoModelForCausalLM

from statprune.core.methods import get_method
from statprune.core.patterns import NofM
from statprune.errors import ModelError
from statprune.model.loading import load_model
from statprune.model.saving import save_model
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.runs.pipeline import run
from tests.helpers.command import composed
from tests.helpers.families import tiny_model
from tests.helpers.loading import saved
from tests.helpers.windows import random_windows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dense checkpoint, and the one that pruning made of it block by block."""
    folder = tmp_path_factory.mktemp("checkpoint")
    dense = saved(tiny_model("MixtralConfig"), folder / "dense")
    opened = load_model(str(dense), offload="disk", folder=folder / "pruned")
    prune(opened, random_windows(5, 16), PruneSpec(get_method("wanda"), NofM(2, 4)))
    save_model(opened, folder / "pruned")
    opened.close()
    return dense, folder / "pruned"


@pytest.fixture(scope="module")
def index(folders):
    _, pruned = folders
    return json.loads((pruned / "model.safetensors.index.json").read_text())


@pytest.fixture(scope="module")
def stored(folders):
    """Bytes by name of each file of the pruned checkpoint."""
    _, pruned = folders
    files = {}
    for path in sorted(pruned.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            files[path.name] = {key: file.get_tensor(key).nbytes for key in sorted(file.keys())}
    return files


def test_a_pruned_checkpoint_has_the_names_of_the_dense_one(folders, index):
    dense, _ = folders
    with safe_open(dense / "model.safetensors", "pt") as file:
        assert set(index["weight_map"]) == set(file.keys())


def test_the_index_says_in_which_file_each_weight_is(index, stored):
    assert {key: name for name, sizes in stored.items() for key in sizes} == index["weight_map"]


def test_the_index_says_how_large_the_weights_are(index, stored):
    assert sum(sum(sizes.values()) for sizes in stored.values()) == index["metadata"]["total_size"]


def test_no_temporary_file_stays_beside_the_checkpoint(folders):
    _, pruned = folders
    assert not list(pruned.glob(".*"))


def test_parameters_of_one_value_come_back_from_disk(tmp_path):
    """Apertus' activations have them; what stands in for a streamed parameter has one value, too."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    dense = ApertusForCausalLM(ApertusConfig(vocab_size=97, pad_token_id=0, **size))
    for layer in dense.model.layers:
        layer.mlp.act_fn.alpha_p.data.fill_(0.625)
    opened = load_model(str(saved(dense, tmp_path / "dense")), offload="disk", folder=tmp_path / "pruned")
    save_model(opened, tmp_path / "pruned")
    opened.close()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    for key, value in dense.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_a_disk_that_fills_up_ends_in_a_sentence(tiny_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("statprune.model.checkpoint.save_file", full)
    small = ["calibration.samples=3", "calibration.seq_len=16", "evaluation.seq_len=16", "evaluation.max_windows=3"]
    config = composed(*small, "tracking=disabled", "device=cpu", f"model.path={tiny_folder}", "offload=disk")
    with pytest.raises(ModelError, match=r"a pruned block can't be written .*No space left.*room on the disk"):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("family", "dtype", "kept"),
    [("DeepseekV3Config", torch.bfloat16, "e_score_correction_bias"), ("GptOssConfig", torch.float16, "layernorm")],
    ids=["buffers", "parameters"],
)
def test_what_a_class_keeps_in_float32_is_read_so_from_disk(family, dtype, kept, tmp_path):
    model = tiny_model(family).to(dtype)
    own = {name: part for name, part in model.state_dict(keep_vars=True).items() if kept in name}
    for part in own.values():
        part.data = torch.rand(part.shape) + 0.5
    dense = saved(model, tmp_path / "dense")
    opened = load_model(str(dense), offload="disk", folder=tmp_path / "copy")
    windows = random_windows(4, 16)
    with torch.no_grad():
        computed = opened.model(windows).logits
        assert torch.equal(computed, load_model(str(dense)).model(windows).logits)
    prune(opened, windows, PruneSpec(get_method("wanda"), NofM(2, 4)))
    save_model(opened, tmp_path / "copy")
    opened.close()
    whole = load_model(str(tmp_path / "copy")).model.state_dict()
    assert own and all(torch.equal(whole[name], part) and part.dtype == torch.float32 for name, part in own.items())
