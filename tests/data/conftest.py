"""A tokenizer, and the hub's layouts as local folders."""

import gzip
import json

import pandas as pd
import pytest

from tests.helpers.models import tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def wikitext2(tmp_path):
    folder = tmp_path / "wikitext" / "wikitext-2-raw-v1"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = pd.DataFrame({"text": ["", f" = {split} = \n", " a line of words . \n" * 20]})
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


@pytest.fixture
def c4(tmp_path):
    folder = tmp_path / "c4" / "en"
    folder.mkdir(parents=True)
    for file, count in (("c4-train.00000-of-01024", 40), ("c4-validation.00000-of-00008", 1200)):
        with gzip.open(folder / f"{file}.json.gz", "wt") as lines:
            for number in range(count):
                text = f"document {number} " + "with some words " * (number % 20)
                lines.write(json.dumps({"text": text, "timestamp": "2019-04-25", "url": "none"}) + "\n")
    return folder.parent


@pytest.fixture
def ptb(tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / "ptb" / "penn_treebank" / split
        folder.mkdir(parents=True)
        rows = pd.DataFrame({"sentence": [f"the {split} part", "no it <unk> was n't", "a line of words " * 20]})
        rows.to_parquet(folder / "0000.parquet")
    return tmp_path / "ptb"
