"""A shared fixture: the folder of a tiny random Llama and its tokenizer."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# before any library reads it: nobody's hub cache may answer in place of the network that tests do without
CACHE = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = CACHE.name
# the bundled model is converted once, by the first process that needs it; workers and commands inherit the name
os.environ.setdefault("STATPRUNE_MODEL_CACHE", f"{CACHE.name}/models")

import pytest
import torch

if not torch.cuda.is_available():  # Triton reads it when it is imported, which transformers' models do
    os.environ["TRITON_INTERPRET"] = "1"

from tests.helpers.long_texts import tokenise_long_texts_once
from tests.helpers.models import tiny_llama, tiny_tokenizer

collect_ignore = ["example_extension"]  # a distribution of its own, which test_extension.py installs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the bundled model's run, which others would wait for in the end."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


def pytest_collection_finish() -> None:
    """Keep the libraries' million objects out of every collection of garbage that follows."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _long_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        tokenise_long_texts_once(patch)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
