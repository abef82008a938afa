"""Shared fixtures: a tiny random Llama (also as a folder with a tokenizer), and the bundled model's smoke run."""

import os
import tempfile
from pathlib import Path

# before any library reads it: nobody's hub cache may answer in place of the network that tests do without
CACHE = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = CACHE.name

import pytest
import torch

if not torch.cuda.is_available():  # Triton reads it when it is imported, which transformers' models do
    os.environ["TRITON_INTERPRET"] = "1"

from tests.helpers.command import statprune
from tests.helpers.models import tiny_llama, tiny_tokenizer


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
