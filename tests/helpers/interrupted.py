"""Runs that end early and go on, and everything that must not depend on that."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from statprune.config.schema import RunConfig
from statprune.errors import Interrupted
from statprune.pruning import loop
from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from statprune.system import stop_request
from tests.helpers.models import tiny_tokenizer

BLOCKS = 5
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
class Numbers:
    """What a run's files say, but for times."""

    weights: dict[str, torch.Tensor]
    reports: list[dict[str, Any]]
    losses: pandas.DataFrame
    perplexity: dict[str, Any]
    masks: dict[str, np.ndarray]

    def assert_equal(self, other: "Numbers") -> None:
        """To the last bit."""
        assert self.weights.keys() == other.weights.keys()
        for name, weight in self.weights.items():
            assert torch.equal(weight, other.weights[name]), name
        assert self.reports == other.reports
        pandas.testing.assert_frame_equal(self.losses, other.losses, check_exact=True)
        assert self.perplexity == other.perplexity
        assert all(np.array_equal(mask, other.masks[name]) for name, mask in self.masks.items())


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


def numbers_of(folder: Path) -> Numbers:
    """The numbers of a finished run that saved its model."""
    weights = {}
    for path in sorted((folder / "model").glob("*.safetensors")):
        weights |= load_file(path)
    reports = [json.loads(line) for line in (folder / "blocks.jsonl").read_text().splitlines()]
    for report in reports:
        del report["seconds"]
    masks = dict(np.load(folder / "masks.npz")) if (folder / "masks.npz").exists() else {}
    perplexity = json.loads((folder / "result.json").read_text())["perplexity"]
    return Numbers(weights, reports, pandas.read_parquet(folder / "windows.parquet"), perplexity, masks)


def interrupt(config: RunConfig, folder: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ask a run to stop once it has pruned ``after`` blocks; returns the sentence it ends with."""
    pruned = 0

    def count(*_: object) -> None:
        nonlocal pruned
        pruned += 1
        if pruned == after:
            stop_request.request(15)

    with monkeypatch.context() as patch:
        patch.setattr("statprune.runs.pipeline.append_reports", count)
        try:
            with pytest.raises(Interrupted) as caught:
                run(config, folder)
        finally:
            stop_request.withdraw()
    assert caught.value.signal == 15
    return str(caught.value)


def count_solves(work: Callable[[], RunRecord], monkeypatch: pytest.MonkeyPatch) -> tuple[int, RunRecord]:
    """How many matrices are solved meanwhile, and the record."""
    solves = 0
    prune_matrix = loop._prune_matrix

    def counted(*arguments: Any) -> Any:
        nonlocal solves
        solves += 1
        return prune_matrix(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_prune_matrix", counted)
        record = work()
    return solves, record
