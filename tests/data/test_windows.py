"""Windows: seeded starts for calibration, consecutive ones for evaluation, and a sentence for unfit texts."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from statprune.data.windows import calibration_windows, evaluation_windows
from statprune.errors import DataError
from tests.helpers.models import tiny_tokenizer


def test_c4_draws_documents_longer_than_a_window_with_one_generator(c4, tokenizer):
    windows = calibration_windows(tokenizer, "c4", samples=6, seq_len=32, seed=3, path=str(c4))
    generator = torch.Generator().manual_seed(3)
    texts = [f"document {number} " + "with some words " * (number % 20) for number in range(40)]
    for row, (number, start) in zip(windows.ids, windows.origin.starts, strict=True):
        while True:
            drawn = int(torch.randint(0, 40, (1,), generator=generator))
            ids = tokenizer(texts[drawn])["input_ids"]
            if len(ids) > 33:
                break
        wanted = int(torch.randint(0, len(ids) - 33, (1,), generator=generator))
        assert (number, start) == (drawn, wanted) and row.tolist() == ids[start : start + 32]


def test_c4_without_a_document_longer_than_a_window_says_so(c4, tokenizer):
    with pytest.raises(DataError, match=r"longer than calibration\.seq_len=4096"):
        calibration_windows(tokenizer, "c4", samples=1, seq_len=4096, path=str(c4))


@pytest.fixture
def words(tmp_path):
    """A text file of a few thousand tokens."""
    file = tmp_path / "words.txt"
    file.write_text("some words of prose, " * 200)
    return file


def test_calibration_windows_start_where_the_seed_says(words, tokenizer):
    ids = tokenizer(words.read_text())["input_ids"]
    windows = calibration_windows(tokenizer, "text", samples=5, seq_len=16, seed=7, path=str(words))
    starts = torch.randint(0, len(ids) - 17, (5,), generator=torch.Generator().manual_seed(7)).tolist()
    assert windows.origin.starts == starts
    assert windows.ids.tolist() == [ids[start : start + 16] for start in starts]


def test_the_origin_counts_the_texts_tokens(words, tokenizer):
    windows = calibration_windows(tokenizer, "text", samples=5, seq_len=16, seed=7, path=str(words))
    assert windows.origin.text_tokens == len(tokenizer(words.read_text())["input_ids"])


def test_evaluation_windows_follow_each_other_through_the_text(words, tokenizer):
    ids = tokenizer(words.read_text())["input_ids"]
    evaluation = evaluation_windows(tokenizer, "text", seq_len=16, path=str(words))
    assert evaluation.ids.flatten().tolist() == ids[: len(ids) // 16 * 16]


def test_evaluation_takes_at_most_the_windows_asked_for(words, tokenizer):
    assert len(evaluation_windows(tokenizer, "text", seq_len=16, max_windows=3, path=str(words)).ids) == 3


@pytest.mark.parametrize("cut", [calibration_windows, evaluation_windows])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is no file"), (b" \n", "is empty"), (b"a few words", "too few"), (b"\xff\xfe\x00", "not UTF-8")],
    ids=["missing", "empty", "short", "binary"],
)
def test_an_unfit_text_is_refused_in_a_sentence(cut, content, message, tmp_path, tokenizer):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(DataError, match=message):
        cut(tokenizer, "text", seq_len=64, path=str(tmp_path / "text"))


def test_windows_that_begin_with_bos_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("words <s> " * 40)
    beginning = tiny_tokenizer()
    beginning.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    for tokenizer in (tiny_tokenizer(), beginning):
        for cut in (calibration_windows, evaluation_windows):
            windows = cut(tokenizer, "text", seq_len=8, path=str(tmp_path / "a.txt"))
            assert windows.origin.windows_with_bos == sum(row[0] == 1 for row in windows.ids.tolist())
    assert windows.ids[0, 0] == 1 and windows.origin.windows_with_bos > 0


def test_a_text_that_the_tokenizer_begins_has_one_window_with_bos(words):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    assert evaluation_windows(tokenizer, "text", seq_len=16, path=str(words)).origin.windows_with_bos == 1
