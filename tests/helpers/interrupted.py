"""Pruning that ends early and goes on, and everything that must not depend on that."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from statprune.config.sections import Checkpoint
from statprune.errors import Interrupted
from statprune.model.loading import load_model
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import PruneRuntime, PruneSpec
from statprune.runs.checkpoint_files import CheckpointFiles
from statprune.runs.checkpoint_opening import found_in
from statprune.runs.pruning_checkpoint import PruningCheckpoint
from statprune.runs.store import CHECKPOINT
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_tokenizer
from tests.helpers.windows import random_windows

BLOCKS = 5
PARTS = {"model": "tiny"}
WINDOWS = random_windows(5, 32)
SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Attempt:
    """One attempt at pruning.

    Attributes:
        weights: of all blocks afterwards, by name.
        reports: of its matrices, but for their seconds; those that an earlier attempt pruned are among them.
        solved: how many matrices this attempt solved.
        seconds: by phase.
        checkpoint: what it was given.
    """

    weights: dict[str, Tensor]
    reports: list[dict[str, Any]]
    solved: int
    seconds: dict[str, float]
    checkpoint: PruningCheckpoint

    def assert_equals(self, other: "Attempt") -> None:
        """To the last bit."""
        assert self.reports == other.reports
        assert self.weights.keys() == other.weights.keys()
        for name, weight in self.weights.items():
            assert torch.equal(weight, other.weights[name]), name


def deep_folder(folder: Path, mixture: bool = False) -> Path:
    """A tiny model of several blocks with its tokenizer, in a folder; returns that."""
    torch.manual_seed(0)
    if mixture:
        options = {"num_local_experts": 4, "num_experts_per_tok": 2}
        MixtralForCausalLM(MixtralConfig(**SMALL, **options)).save_pretrained(folder)
    else:
        LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def attempt(
    model: Path,
    folder: Path,
    spec: PruneSpec,
    offload: str = "none",
    mode: Checkpoint = Checkpoint.true,
    stop_after: int | None = None,
) -> Attempt:
    """Prune a model, going on from what an earlier attempt left in the folder.

    Args:
        model: its folder.
        folder: of the run.
        spec: what to do.
        offload: where blocks wait.
        mode: whether blocks are kept.
        stop_after: ask to stop after so many blocks; None: never.
    """
    folder.mkdir(exist_ok=True)
    opened = load_model(str(model), offload=offload, folder=folder / "model")
    blocks = find_blocks(opened, WINDOWS)
    checkpoint = PruningCheckpoint(folder, mode, blocks, PARTS, found_in(CheckpointFiles(folder / CHECKPOINT), PARTS))
    reports: list[MatrixReport] = []
    told = 0

    def on_block(_: int, __: int, own: Any) -> None:
        nonlocal told
        reports.extend(own)
        told += 1

    def should_stop() -> int | None:
        return 15 if told == stop_after else None

    runtime = PruneRuntime(2, on_block=on_block, checkpoint=checkpoint, should_stop=should_stop)
    seconds: dict[str, float] = {}
    try:
        seconds = prune(opened, WINDOWS, spec, runtime, blocks).seconds
    except Interrupted as error:
        assert error.signal == 15 and stop_after is not None
    weights = {}
    for block in blocks:
        with block.loaded():
            own = block.module.state_dict()
            weights |= {f"{block.path}.{name}": value.clone() for name, value in own.items()}
    opened.close()
    solved = len(reports) - sum(len(block.reports) for block in checkpoint.finished)
    return Attempt(weights, [_without_seconds(report.to_json()) for report in reports], solved, seconds, checkpoint)


def assert_same_files(folder: Path, other: Path) -> None:
    """Two finished runs that saved their models have the same numbers, to the last bit."""
    for path in sorted((folder / "model").glob("*.safetensors")):
        weights, others = load_file(path), load_file(other / "model" / path.name)
        assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    reports, others = (
        [_without_seconds(json.loads(line)) for line in (run / "blocks.jsonl").read_text().splitlines()]
        for run in (folder, other)
    )
    assert reports == others
    losses, other_losses = (pandas.read_parquet(run / "windows.parquet") for run in (folder, other))
    pandas.testing.assert_frame_equal(losses, other_losses, check_exact=True)
    record, other_record = (json.loads((run / "result.json").read_text()) for run in (folder, other))
    for key in ("perplexity", "fidelity", "sparsity", "coverage", "correction", "config_hash"):
        assert record[key] == other_record[key], key


def _without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "seconds"}
