"""Text sources: hub layouts as local folders, and a sentence for everything missing."""

import re

import pandas as pd
import pytest

from statprune.data.bundled import bundled_topics
from statprune.data.sources import get_source
from statprune.data.windows import evaluation_windows
from statprune.errors import DataError


@pytest.mark.parametrize(("split", "file"), [("calibration", "train"), ("evaluation", "test")])
def test_wikitext2_joins_the_lines_of_its_split(split, file, wikitext2):
    wanted = "\n\n".join(["", f" = {file} = \n", " a line of words . \n" * 20])
    assert get_source("wikitext2").text(split, str(wikitext2)) == wanted


@pytest.mark.parametrize(("split", "file"), [("calibration", "train"), ("evaluation", "test")])
def test_ptb_joins_the_sentences_of_its_split_by_blanks(split, file, ptb, tokenizer):
    wanted = f"the {file} part no it <unk> was n't " + "a line of words " * 20
    assert get_source("ptb").text(split, str(ptb)) == wanted
    assert list(get_source("ptb").files_read(split, str(ptb))) == ["0000.parquet"]
    windows = evaluation_windows(tokenizer, "ptb", 8, path=str(ptb))
    assert windows.origin.source == "ptb" and windows.ids.shape[1] == 8


def test_c4_evaluates_on_wandas_first_documents(c4):
    text = get_source("c4").text("evaluation", str(c4))
    assert "document 1099 " in text and "document 1100 " not in text


def test_bundled_splits_share_no_paragraph():
    calibration, evaluation = (
        {" ".join(p.split()) for p in re.split(r"\n\s*\n", "\n\n".join(bundled_topics(split)))}
        for split in ("calibration", "evaluation")
    )
    assert len(calibration) > 100 and len(evaluation) > 50 and not calibration & evaluation


def test_a_text_without_a_path_names_the_key():
    assert "calibration.path is not set" in get_source("text").problem("calibration", None)


def test_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "bom.txt"
    file.write_bytes(b"\xef\xbb\xbfsome words")
    assert get_source("text").text("evaluation", str(file)) == "some words"


def test_a_folder_without_the_hubs_file_names_it(tmp_path):
    with pytest.raises(DataError, match=r"evaluation.path=.* has no wikitext-2-raw-v1/test-"):
        get_source("wikitext2").text("evaluation", str(tmp_path))


def test_a_truncated_copy_of_a_hub_file_is_named(c4):
    (file,) = c4.rglob("c4-validation*")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"c4-validation.* can't be read .*evaluation\.path needs an undamaged copy"):
        get_source("c4").text("evaluation", str(c4))


def test_a_copy_of_a_hub_file_without_its_column_is_named(wikitext2):
    (file,) = wikitext2.rglob("test-*")
    pd.DataFrame({"words": ["no column of that name"]}).to_parquet(file)
    with pytest.raises(DataError, match=r"test-.* can't be read .*'text'"):
        get_source("wikitext2").text("evaluation", str(wikitext2))


@pytest.mark.parametrize("source", ["wikitext2", "c4", "ptb"])
def test_no_network_ends_in_a_sentence_at_once(source, monkeypatch):
    monkeypatch.setattr("statprune.system.hub.reachable", lambda: False)
    with pytest.raises(DataError, match="no network, and not in the local cache"):
        get_source(source).text("evaluation", None)
