"""BOS before every window, before none, or as the tokenizer has it."""

import pytest
import torch

from statprune.data.windows import Bos, calibration_windows, evaluation_windows
from statprune.errors import ChoiceError, DataError, ModelError
from statprune.runs.pipeline import run
from tests.helpers.command import composed, tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer


class WithBos:
    """A tokenizer that puts BOS before a text."""

    bos_token_id = 1

    def __init__(self):
        self._own = tiny_tokenizer()

    def __call__(self, text, verbose, add_special_tokens=True):
        ids = self._own(text)["input_ids"]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), WithBos()], ids=["without", "with"])
def test_bos_is_before_every_window_and_the_text_goes_on_behind_it(tokenizer):
    plain = evaluation_windows(tiny_tokenizer(), "bundled", 7, 6)
    own = evaluation_windows(tokenizer, "bundled", 8, 6, bos=Bos.always)
    assert own.ids.shape == (6, 8) and own.ids[:, 0].tolist() == [1] * 6
    assert torch.equal(own.ids[:, 1:], plain.ids) and own.origin.windows_with_bos == 6
    assert torch.equal(evaluation_windows(tokenizer, "bundled", 8, 6, bos="always").ids, own.ids)
    assert own.origin.text_tokens == plain.origin.text_tokens


def test_a_text_keeps_its_bos_unless_it_is_asked_not_to():
    counts = [
        evaluation_windows(WithBos(), "bundled", 8, 6, bos=bos).origin.windows_with_bos
        for bos in (Bos.auto, Bos.never, Bos.always)
    ]
    assert counts == [1, 0, 6]
    never = evaluation_windows(WithBos(), "bundled", 8, 6, bos=Bos.never)
    assert torch.equal(never.ids, evaluation_windows(tiny_tokenizer(), "bundled", 8, 6).ids)


def test_calibration_windows_begin_with_bos_and_start_where_the_record_says():
    own = calibration_windows(WithBos(), "bundled", 4, 8, bos=Bos.always)
    assert own.origin.windows_with_bos == 4
    plain = calibration_windows(tiny_tokenizer(), "bundled", 4, 7)
    assert own.ids[:, 0].tolist() == [1] * 4 and torch.equal(own.ids[:, 1:], plain.ids)
    assert own.origin.starts == plain.origin.starts


def test_a_tokenizer_without_bos_is_refused_before_the_model_is_opened(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    tiny_llama().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("statprune.runs.prepare.open_model", lambda *_: pytest.fail("opened"))
    for key in ("evaluation.bos", "calibration.bos"):
        with pytest.raises(ModelError, match=f"{key}=always can't be followed: .* has no BOS token; give {key}=auto"):
            run(tiny_job(tmp_path / "model", f"{key}=always"), tmp_path / "run")
    with pytest.raises(DataError, match="no BOS token"):
        evaluation_windows(tokenizer, "bundled", 8, 2, bos=Bos.always)


def test_sentences_of_lengths_tell_of_bos_and_an_unknown_choice_is_one():
    with pytest.raises(DataError, match=r"too few for one window .* \(a token of the text less in each window"):
        evaluation_windows(tiny_tokenizer(), "bundled", 10**8, bos=Bos.always)
    with pytest.raises(ChoiceError, match="bos=first is unknown; choose auto, always or never"):
        evaluation_windows(tiny_tokenizer(), "bundled", 8, bos="first")


def test_the_default_is_no_part_of_a_configuration():
    resolved = composed().resolved()
    assert "bos" not in resolved["evaluation"] and "bos" not in resolved["calibration"]
    assert composed("evaluation.bos=never").hash() != composed().hash() != composed("calibration.bos=always").hash()
    assert composed("evaluation.bos=always").resolved()["evaluation"]["bos"] == "always"
