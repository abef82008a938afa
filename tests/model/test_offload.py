"""Blocks that wait on the host or on disk: the same results, in little memory."""

import itertools
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.errors import ModelError
from statprune.evaluation.perplexity import window_losses_by_block
from statprune.model.coverage import sparsity
from statprune.model.loading import load_model
from statprune.model.offload import HostSource, Streamer, is_here
from statprune.model.saving import save_model
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneRuntime, PruneSpec
from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from statprune.walk.discover import find_blocks
from tests.helpers.command import composed, statprune
from tests.helpers.families import tiny_model
from tests.helpers.loading import saved
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16)
FAMILIES = ["LlamaConfig", "GPT2Config", "OPTConfig", "FalconConfig", "Gemma3TextConfig", "MixtralConfig"]
FAMILIES += ["Qwen3MoeConfig", "GptOssConfig", "DeepseekV3Config", "Llama4TextConfig", "MambaConfig"]
SMALL = ["calibration.samples=3", "calibration.seq_len=16", "evaluation.seq_len=16", "evaluation.max_windows=3"]
SMALL += ["tracking=disabled", "device=cpu"]


@dataclass
class Outcome:
    """What pruning one model came to."""

    losses_before: Tensor
    losses_after: Tensor
    sparsity: float
    weights: dict[str, Tensor]


def pruned(dense: Path, offload: str, folder: Path) -> Outcome:
    """Open the model in ``dense``, prune it and save it to ``folder``."""
    opened = load_model(str(dense), offload=offload, folder=folder)
    blocks = find_blocks(opened, WINDOWS)
    before = window_losses_by_block(opened.model, blocks, WINDOWS, 2)
    spec = PruneSpec(get_method("cvr"), Unstructured(0.5), Energy())
    prune(opened, WINDOWS, spec, PruneRuntime(batch_size=2), blocks=blocks)
    save_model(opened, folder)
    after = window_losses_by_block(opened.model, blocks, WINDOWS, 2)
    zeros = sparsity(blocks)
    opened.close()
    return Outcome(before, after, zeros, AutoModelForCausalLM.from_pretrained(folder).state_dict())


@pytest.fixture(scope="module", params=list(itertools.product(FAMILIES, ["cpu", "disk"])), ids="-".join)
def outcomes(request, tmp_path_factory):
    """In memory, and offloaded."""
    name, offload = request.param
    folder = tmp_path_factory.mktemp("offload")
    dense = saved(tiny_model(name), folder / "dense")
    return pruned(dense, "none", folder / "memory"), pruned(dense, offload, folder / "offloaded")


def test_a_dense_offloaded_model_has_the_losses_it_has_in_memory(outcomes):
    memory, offloaded = outcomes
    assert torch.equal(memory.losses_before, offloaded.losses_before)


def test_a_pruned_offloaded_model_has_the_losses_it_has_in_memory(outcomes):
    memory, offloaded = outcomes
    assert torch.equal(memory.losses_after, offloaded.losses_after)


def test_a_pruned_offloaded_model_has_the_sparsity_it_has_in_memory(outcomes):
    memory, offloaded = outcomes
    assert memory.sparsity == offloaded.sparsity > 0.1


def test_a_pruned_offloaded_model_is_saved_with_the_bits_it_has_in_memory(outcomes):
    memory, offloaded = outcomes
    assert memory.weights.keys() == offloaded.weights.keys()
    for key, value in memory.weights.items():
        assert torch.equal(value, offloaded.weights[key]) and value.dtype == offloaded.weights[key].dtype, key


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_a_streamed_model_is_refused_without_what_streams_it(offload, tiny_folder, tmp_path):
    opened = load_model(str(tiny_folder), offload=offload, folder=tmp_path / "pruned")
    with pytest.raises(ModelError, match="blocks of LlamaForCausalLM are streamed; give the LoadedModel"):
        find_blocks(opened.model, WINDOWS)
    opened.close()


@dataclass
class Watched:
    """Which blocks were on the device while a model was pruned from disk."""

    at_loads: list[list[int]]
    at_reads: list[list[int]]
    at_the_end: list[int]


@pytest.fixture
def watched(tmp_path):
    opened = load_model(str(saved(tiny_llama(), tmp_path / "dense")), offload="disk", folder=tmp_path / "pruned")
    streamer = opened.streamer

    def here():
        return [index for index, block in enumerate(streamer.modules) if any(map(is_here, block.parameters()))]

    at_loads, at_reads, read = [], [], streamer.source.read

    def watched_read(index):
        at_reads.append(here())
        return read(index)

    streamer.source.read = watched_read
    streamer.on_load.append(lambda: at_loads.append(here()))
    prune(opened, WINDOWS, PruneSpec(get_method("wanda"), Unstructured(0.5)))
    yield Watched(at_loads, at_reads, here())
    opened.close()


def test_only_the_block_at_work_is_on_the_device(watched):
    assert all(len(indices) == 1 for indices in watched.at_loads)
    assert watched.at_loads[-3:] == [[0], [1], [2]] and watched.at_the_end == []


def test_at_most_one_block_is_on_the_device_while_the_next_is_on_its_way(watched):
    assert max(map(len, watched.at_reads)) <= 1


@dataclass
class Streamed:
    """Three blocks of two matrices each, of which two blocks share one; their values; and how often a block came."""

    blocks: nn.ModuleList
    values: list[Tensor]
    streamer: Streamer
    loads: list[int]


@pytest.fixture
def streamed():
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3))
    blocks[2][1].weight = blocks[0][1].weight
    values = [block[0].weight.detach().clone() for block in blocks]
    streamer = Streamer(list(blocks), HostSource(list(blocks), pin=False), torch.device("cpu"))
    loads = []
    streamer.on_load.append(lambda: loads.append(1))
    yield Streamed(blocks, values, streamer, loads)
    streamer.close()


def test_a_parameter_that_blocks_share_stays_on_the_device(streamed):
    assert is_here(streamed.blocks[2][1].weight) and not is_here(streamed.blocks[0][0].weight)


def test_a_block_asked_for_twice_is_loaded_once(streamed):
    with streamed.streamer.held(2), streamed.streamer.held(2):
        assert torch.equal(streamed.blocks[2][0].weight, streamed.values[2])
        streamed.blocks[2](torch.ones(1, 4))
    assert len(streamed.loads) == 1


def test_a_changed_block_comes_back_changed(streamed):
    with streamed.streamer.held(0, changed=True):
        streamed.blocks[0][0].weight.data.zero_()
    with streamed.streamer.held(1):
        assert torch.equal(streamed.blocks[1][0].weight, streamed.values[1])
    with streamed.streamer.held(0):
        assert streamed.blocks[0][0].weight.count_nonzero() == 0
    assert len(streamed.loads) == 3


def test_a_block_that_is_not_said_to_be_changed_comes_back_as_it_was(streamed):
    with streamed.streamer.held(1):
        streamed.blocks[1][0].weight.data.zero_()
    with streamed.streamer.held(1):
        assert torch.equal(streamed.blocks[1][0].weight, streamed.values[1])
    assert len(streamed.loads) == 2


@dataclass
class Runs:
    """The same run in memory and from disk: their records, and the files and threads of the latter."""

    saves_model: bool
    memory: RunRecord
    disk: RunRecord
    files: set[str]
    threads: list[str]


@pytest.fixture(scope="module", params=[False, True], ids=["unsaved", "saved"])
def runs(request, tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def record(offload, *overrides):
        small = [*SMALL, f"model.path={tiny_folder}", f"save_model={request.param}", f"offload={offload}"]
        return run(composed(*small, *overrides), folder / offload)

    memory, disk = record("none"), record("disk", "activations=disk")
    files = {path.name for path in (folder / "disk").iterdir()}
    threads = [thread.name for thread in threading.enumerate() if "offload" in thread.name]
    return Runs(request.param, memory, disk, files, threads)


def test_a_run_from_disk_measures_what_a_run_in_memory_does(runs):
    assert runs.memory.perplexity == runs.disk.perplexity and runs.memory.zero_shot == runs.disk.zero_shot
    assert runs.memory.sparsity == runs.disk.sparsity


def test_a_run_from_disk_has_the_hash_of_a_run_in_memory(runs):
    assert runs.memory.config_hash == runs.disk.config_hash


def test_a_run_records_where_hidden_states_waited(runs):
    assert runs.disk.memory.activations == "disk"


def test_a_run_from_disk_leaves_no_thread(runs):
    assert not runs.threads


def test_a_run_from_disk_leaves_only_the_files_of_a_run(runs):
    files = {"result.json", "blocks.jsonl", "windows.parquet"}
    assert runs.files == files | ({"model", ".saves-model"} if runs.saves_model else set())


@pytest.fixture(scope="module")
def depths(tmp_path_factory):
    """Memory of a run from disk with 2 and with 16 blocks; all 16 are 206 MB, half of what the process takes."""
    memories = []
    for blocks in (2, 16):
        torch.manual_seed(0)
        size = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_hidden_layers": blocks}
        folder = tmp_path_factory.mktemp(f"depth{blocks}")
        model = LlamaForCausalLM(LlamaConfig(vocab_size=97, max_position_embeddings=64, **size))
        overrides = [*SMALL, f"model.path={saved(model, folder / 'model')}", "offload=disk"]
        assert (done := statprune(*overrides, cwd=folder, fresh=True)).returncode == 0, done.stderr
        (record,) = folder.glob("outputs/default/*/result.json")
        memories.append(json.loads(record.read_text())["memory"])
    return memories


@pytest.mark.long
def test_a_model_eight_times_as_deep_takes_no_more_memory(depths):
    shallow, deep = depths
    assert deep["peak_host_bytes"] < 1.25 * shallow["peak_host_bytes"]


@pytest.mark.long
def test_the_peak_of_a_run_from_disk_is_predicted(depths):
    for memory in depths:
        assert memory["peak_host_bytes"] / memory["predicted_host_bytes"] == pytest.approx(1, abs=0.3)


def test_a_full_disk_is_noticed_before_anything_is_pruned(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(ModelError, match=r"pruning will write \d+\.\d KiB below .*, where 1\.0 KiB are free; make"):
        run(composed(*SMALL, f"model.path={tiny_folder}", "offload=disk"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()
