"""Shared fixtures: a tiny random Llama (also as a folder with a tokenizer), and the bundled model's smoke run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# before any library reads it: nobody's hub cache may answer in place of the network that tests do without
CACHE = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = CACHE.name

import pytest
import torch

if not torch.cuda.is_available():  # Triton reads it when it is imported, which transformers' models do
    os.environ["TRITON_INTERPRET"] = "1"

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from statprune.config.schema import RunConfig, parse_config
from statprune.data.sources import bundled_text


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


def statprune(*overrides: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "statprune", *overrides]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def composed(*overrides: str) -> RunConfig:
    """The checked configuration of one job, as the command composes it; without a cache, unless one is given."""
    with initialize_config_module("statprune.conf", version_base="1.3"):
        raw: Any = OmegaConf.to_container(compose("config", ["cache=null", *overrides]), resolve=True)
    return parse_config(raw)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """97 byte pairs learned from the bundled text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=97, special_tokens=["<unk>", "<s>"], limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator([bundled_text("calibration")[:20_000]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    done = statprune("experiment=smoke", "save_model=true", "tracking=offline", cwd=folder)
    assert done.returncode == 0, done.stderr
    return next((folder / "outputs" / "smoke").iterdir()), done
