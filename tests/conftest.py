"""Shared fixtures: a tiny random Llama, and the bundled model's smoke run, made once."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def statprune(*overrides: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "statprune", *overrides], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    done = statprune("experiment=smoke", "save_model=true", "tracking=offline", cwd=folder)
    assert done.returncode == 0, done.stderr
    return next((folder / "outputs" / "smoke").iterdir()), done
