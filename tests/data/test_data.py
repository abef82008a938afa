"""Text sources and windows: hub layouts as local folders, seeded starts, and a sentence for everything missing."""

import gzip
import json
import re

import pandas as pd
import pytest
import torch

from statprune.data.sources import bundled_text, path_problem, read_text
from statprune.data.windows import calibration_windows, evaluation_windows
from statprune.errors import DataError
from tests.helpers.models import tiny_tokenizer


@pytest.fixture(scope="module")
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


def test_wikitext2_joins_its_lines_and_splits_by_part(wikitext2):
    for part, split in (("calibration", "train"), ("evaluation", "test")):
        wanted = "\n\n".join(["", f" = {split} = \n", " a line of words . \n" * 20])
        assert read_text("wikitext2", part, str(wikitext2)) == wanted


def test_c4_evaluates_on_wandas_first_documents(c4):
    text = read_text("c4", "evaluation", str(c4))
    assert "document 1099 " in text and "document 1100 " not in text


def test_c4_draws_documents_longer_than_a_window_with_one_generator(c4, tokenizer):
    windows = calibration_windows(tokenizer, "c4", samples=6, seq_len=32, seed=3, path=str(c4))
    generator = torch.Generator().manual_seed(3)
    texts = [f"document {number} " + "with some words " * (number % 20) for number in range(40)]
    for row, (number, start) in zip(windows.ids, windows.info["starts"], strict=True):
        while True:
            drawn = int(torch.randint(0, 40, (1,), generator=generator))
            ids = tokenizer(texts[drawn])["input_ids"]
            if len(ids) > 33:
                break
        wanted = int(torch.randint(0, len(ids) - 33, (1,), generator=generator))
        assert (number, start) == (drawn, wanted) and row.tolist() == ids[start : start + 32]
    with pytest.raises(DataError, match=r"longer than calibration\.seq_len=4096"):
        calibration_windows(tokenizer, "c4", samples=1, seq_len=4096, path=str(c4))


def test_calibration_starts_come_from_the_seed_and_evaluation_windows_follow_each_other(tmp_path, tokenizer):
    file = tmp_path / "words.txt"
    file.write_text("some words of prose, " * 200)
    ids = tokenizer(file.read_text())["input_ids"]
    windows = calibration_windows(tokenizer, "text", samples=5, seq_len=16, seed=7, path=str(file))
    starts = torch.randint(0, len(ids) - 17, (5,), generator=torch.Generator().manual_seed(7)).tolist()
    assert windows.info["starts"] == starts and windows.info["text_tokens"] == len(ids)
    assert windows.ids.tolist() == [ids[start : start + 16] for start in starts]
    evaluation = evaluation_windows(tokenizer, "text", seq_len=16, path=str(file))
    assert evaluation.ids.flatten().tolist() == ids[: len(ids) // 16 * 16]
    assert len(evaluation_windows(tokenizer, "text", seq_len=16, max_windows=3, path=str(file)).ids) == 3


def test_bundled_parts_share_no_paragraph():
    parts = [
        {" ".join(p.split()) for p in re.split(r"\n\s*\n", bundled_text(part))}
        for part in ("calibration", "evaluation")
    ]
    assert len(parts[0]) > 100 and len(parts[1]) > 50 and not parts[0] & parts[1]


def test_missing_empty_short_and_binary_texts_say_so(tmp_path, tokenizer):
    files = {"empty": b" \n", "short": b"a few words", "binary": b"\xff\xfe\x00"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    cases = {"missing": "is no file", "empty": "is empty", "short": "too few", "binary": "not UTF-8"}
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            calibration_windows(tokenizer, "text", seq_len=64, path=str(tmp_path / name))
        with pytest.raises(DataError, match=message):
            evaluation_windows(tokenizer, "text", seq_len=64, path=str(tmp_path / name))
    assert "calibration.path is not set" in path_problem("text", "calibration", None)


def test_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "bom.txt"
    file.write_bytes(b"\xef\xbb\xbfsome words")
    assert read_text("text", "evaluation", str(file)) == "some words"


def test_a_folder_without_the_hubs_file_names_it(tmp_path):
    with pytest.raises(DataError, match=r"evaluation.path=.* has no wikitext-2-raw-v1/test-"):
        read_text("wikitext2", "evaluation", str(tmp_path))


def test_a_damaged_copy_of_a_hub_file_names_it(c4, wikitext2):
    (file,) = c4.rglob("c4-validation*")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"c4-validation.* can't be read .*evaluation\.path needs an undamaged copy"):
        read_text("c4", "evaluation", str(c4))
    (file,) = wikitext2.rglob("test-*")
    pd.DataFrame({"words": ["no column of that name"]}).to_parquet(file)
    with pytest.raises(DataError, match=r"test-.* can't be read .*'text'"):
        read_text("wikitext2", "evaluation", str(wikitext2))


def test_no_network_ends_in_a_sentence_at_once(monkeypatch):
    monkeypatch.setattr("statprune.system.hub.reachable", lambda: False)
    for source in ("wikitext2", "c4"):
        with pytest.raises(DataError, match="no network, and not in the local cache"):
            read_text(source, "evaluation")
