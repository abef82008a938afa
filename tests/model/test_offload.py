"""Blocks that wait on the host or on disk, hidden states that wait in files: the same results, in little memory."""

import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import ApertusConfig, ApertusForCausalLM, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.errors import ConfigError, ModelError
from statprune.evaluate.perplexity import window_losses, window_losses_by_block
from statprune.model.loading import load_model, save_model, sparsity
from statprune.model.offload import HostSource, Streamer, is_here
from statprune.pruning.loop import prune
from statprune.runs.pipeline import run
from statprune.walk.activations import OnDisk, Place, keeper
from statprune.walk.batches import capture
from statprune.walk.discover import find_blocks
from tests.helpers.command import composed, statprune
from tests.helpers.families import VOCABULARY, tiny
from tests.helpers.models import tiny_llama, tiny_tokenizer

WINDOWS = torch.randint(3, VOCABULARY, (5, 16), generator=torch.Generator().manual_seed(0))
FAMILIES = ["LlamaConfig", "GPT2Config", "OPTConfig", "FalconConfig", "Gemma3TextConfig", "MixtralConfig"]
FAMILIES += ["Qwen3MoeConfig", "GptOssConfig", "DeepseekV3Config", "Llama4TextConfig", "MambaConfig"]


def saved(model, folder):
    save_model(model, tiny_tokenizer(), folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_families_give_the_bits_they_give_in_memory(name, offload, tmp_path):
    dense = saved(tiny(name), tmp_path / "dense")
    models = [load_model(str(dense))[0]]
    models.append(load_model(str(dense), offload=offload, folder=tmp_path / "offloaded")[0])
    losses = []
    for model, folder in zip(models, ("memory", "offloaded"), strict=True):
        blocks = find_blocks(model, WINDOWS)
        before = window_losses_by_block(model, blocks, WINDOWS, 2)
        prune(model, WINDOWS, get_method("cvr"), Unstructured(0.5), Energy(), batch_size=2, blocks=blocks)
        save_model(model, tiny_tokenizer(), tmp_path / folder)
        losses.append((before, window_losses_by_block(model, blocks, WINDOWS, 2), sparsity(blocks)))
    assert torch.equal(losses[0][0], losses[1][0]) and torch.equal(losses[0][1], losses[1][1])
    assert losses[0][2] == losses[1][2] > 0.1
    models[1].block_streamer.close()
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / f).state_dict() for f in ("memory", "offloaded"))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) and value.dtype == second[key].dtype, key


def test_the_saved_checkpoint_has_the_names_and_the_index_of_the_field(tmp_path):
    dense = saved(tiny("MixtralConfig"), tmp_path / "dense")
    model, tokenizer = load_model(str(dense), offload="disk", folder=tmp_path / "pruned")
    prune(model, WINDOWS, get_method("wanda"), NofM(2, 4))
    save_model(model, tokenizer, tmp_path / "pruned")
    model.block_streamer.close()
    index = json.loads((tmp_path / "pruned" / "model.safetensors.index.json").read_text())
    with safe_open(dense / "model.safetensors", "pt") as file:
        assert set(index["weight_map"]) == set(file.keys())
    found, size = {}, 0
    for path in sorted((tmp_path / "pruned").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path.name)
            size += sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
    assert found == index["weight_map"] and size == index["metadata"]["total_size"]
    assert not list((tmp_path / "pruned").glob(".*"))


@pytest.mark.parametrize("propagation", ["pruned", "sequential", "dense"])
@pytest.mark.parametrize("place", [Place.device, Place.host, Place.disk])
def test_where_windows_wait_changes_nothing(propagation, place, tmp_path):
    models = [tiny_llama(), tiny_llama()]
    for model, keep in zip(models, (keeper(Place.device, None), keeper(place, tmp_path)), strict=True):
        pattern = Unstructured(0.5)
        prune(model, WINDOWS % 97, get_method("sparsegpt"), pattern, None, propagation, 2, keep=keep)
    for key, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[key]), key
    assert not list(tmp_path.iterdir())


def test_parameters_of_one_value_come_back_from_disk(tmp_path):
    """Apertus' activations have them; what stands in for a streamed parameter has one value, too."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    dense = ApertusForCausalLM(ApertusConfig(vocab_size=97, pad_token_id=0, **size))
    for layer in dense.model.layers:
        layer.mlp.act_fn.alpha_p.data.fill_(0.625)
    model, tokenizer = load_model(str(saved(dense, tmp_path / "dense")), offload="disk", folder=tmp_path / "pruned")
    save_model(model, tokenizer, tmp_path / "pruned")
    model.block_streamer.close()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    for key, value in dense.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_at_most_two_blocks_are_on_the_device(tmp_path):
    """The one at work and the next, which is on its way."""
    saved(tiny_llama(), tmp_path / "dense")
    model, _ = load_model(str(tmp_path / "dense"), offload="disk", folder=tmp_path / "pruned")
    streamer = model.block_streamer

    def here():
        return [index for index, block in enumerate(streamer.modules) if any(map(is_here, block.parameters()))]

    fetched, fetch = [], streamer._fetch

    def counting(index):
        fetched.append((index, len(here())))
        return fetch(index)

    streamer._fetch = counting
    seen = []
    streamer.on_load.append(lambda: seen.append(here()))
    prune(model, WINDOWS % 97, get_method("wanda"), Unstructured(0.5))
    assert all(len(indices) == 1 for indices in seen) and seen[-3:] == [[0], [1], [2]]
    assert max(count for _, count in fetched) <= 1 and here() == []
    streamer.close()


def test_a_block_asked_for_twice_is_loaded_once_and_shared_parameters_stay():
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3))
    shared = blocks[2][1].weight = blocks[0][1].weight
    values = [block[0].weight.detach().clone() for block in blocks]
    streamer = Streamer(list(blocks), HostSource(list(blocks), pin=False), torch.device("cpu"))
    loads = []
    streamer.on_load.append(lambda: loads.append(1))
    assert is_here(shared) and not is_here(blocks[0][0].weight)
    with streamer.held(2), streamer.held(2):
        assert torch.equal(blocks[2][0].weight, values[2])
        blocks[2](torch.ones(1, 4))
    with streamer.held(0, changed=True):
        blocks[0][0].weight.data.zero_()
    with streamer.held(1):
        blocks[1][0].weight.data.zero_()  # not said to be changed
    with streamer.held(0):
        assert blocks[0][0].weight.count_nonzero() == 0
    with streamer.held(1):
        assert torch.equal(blocks[1][0].weight, values[1])
    assert len(loads) == 5
    streamer.close()


def test_block_by_block_losses_are_the_models_own():
    model = tiny_llama()
    done = []
    blocks = find_blocks(model, WINDOWS % 97)
    losses = window_losses_by_block(model, blocks, WINDOWS % 97, 2, progress=done.append)
    assert torch.equal(losses, window_losses(model, WINDOWS % 97, 2))
    assert done[-1] == 5 and done == sorted(done)


def test_files_of_hidden_states_go_with_them(tmp_path):
    model = tiny_llama()
    batches = capture(model, find_blocks(model, WINDOWS % 97), WINDOWS % 97, 2, keeper(Place.disk, tmp_path))
    assert len(list(tmp_path.glob("*.hidden"))) == 3
    batches[0].hidden = batches[0].hidden.bfloat16() + 1
    assert batches[0].hidden.dtype == torch.bfloat16 and batches[0].hidden.shape == (2, 16, 32)
    OnDisk._thread.submit(int).result()
    assert len(list(tmp_path.glob("*.hidden"))) == 3
    batches.clear()
    OnDisk._thread.submit(int).result()
    assert not list(tmp_path.iterdir())


SMALL = ["calibration.samples=3", "calibration.seq_len=16", "evaluation.seq_len=16", "evaluation.max_windows=3"]
SMALL += ["tracking=disabled", "device=cpu"]


@pytest.mark.parametrize("save", [False, True])
def test_runs_from_disk_have_the_record_of_a_run_in_memory(save, tiny_folder, tmp_path):
    records = []
    for offload in ("none", "disk"):
        overrides = [*SMALL, f"model.path={tiny_folder}", f"offload={offload}", f"save_model={save}"]
        overrides += ["activations=disk"] if offload == "disk" else []
        records.append(run(composed(*overrides), tmp_path / offload))
    first, second = records
    assert first["metrics"] == second["metrics"] and first["sparsity"] == second["sparsity"]
    assert first["config_hash"] == second["config_hash"]
    assert second["memory"]["activations"] == "disk"
    files = {path.name for path in (tmp_path / "disk").iterdir()}
    assert files == {"result.json", "blocks.jsonl", "windows.parquet"} | ({"model"} if save else set())
    threads = [thread.name for thread in threading.enumerate() if "offload" in thread.name]
    assert not threads


@pytest.mark.slow
def test_a_model_eight_times_as_deep_takes_no_more_memory(tmp_path):
    peaks = []
    for blocks in (2, 16):
        torch.manual_seed(0)
        size = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_hidden_layers": blocks}
        saved(LlamaForCausalLM(LlamaConfig(vocab_size=97, max_position_embeddings=64, **size)), tmp_path / str(blocks))
        folder = tmp_path / f"run{blocks}"
        folder.mkdir()
        overrides = [*SMALL, f"model.path={tmp_path / str(blocks)}", "offload=disk"]
        assert (done := statprune(*overrides, cwd=folder)).returncode == 0, done.stderr
        (record,) = folder.glob("outputs/default/*/result.json")
        memory = json.loads(record.read_text())["memory"]
        assert memory["peak_host_bytes"] / memory["predicted_host_bytes"] == pytest.approx(1, abs=0.3)
        peaks.append(memory["peak_host_bytes"])
    assert peaks[1] < 1.25 * peaks[0]  # all 16 blocks are 206 MB, half of what the process takes


def test_a_gguf_file_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="decoded whole; save it once with method=dense save_model=true"):
        composed("offload=disk")
    with pytest.raises(ModelError, match="offload=disk reads safetensors"):
        load_model(offload="disk", folder=Path("nowhere"))


def test_a_full_disk_is_found_before_anything_is_pruned(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelError, match=r"pruning will write 0\.00 GiB below .*; make room"):
        run(composed(*SMALL, f"model.path={tiny_folder}", "offload=disk"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def test_a_disk_that_hidden_states_fill_up_ends_in_a_sentence_once(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    kept = keeper(Place.disk, gone)(torch.ones(1, 2))
    kept.get()
    kept._path = Path("/dev/full")
    kept._written = OnDisk._thread.submit(kept._write, torch.ones(1, 4096))
    with pytest.raises(ModelError, match=r"hidden states can't be written .*room on the disk"):
        kept.get()
    assert torch.equal(keeper(Place.disk, tmp_path)(torch.ones(3)).get(), torch.ones(3))


def test_a_disk_that_fills_up_ends_in_a_sentence(tiny_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("statprune.model.checkpoint.save_file", full)
    with pytest.raises(ModelError, match=r"a pruned block can't be written .*No space left.*room on the disk"):
        run(composed(*SMALL, f"model.path={tiny_folder}", "offload=disk"), tmp_path)
