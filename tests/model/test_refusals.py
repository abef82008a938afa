"""Models that can't be opened, or are no decoder, are refused in a sentence."""

import json

import pytest
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from statprune.errors import ModelError
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_tokenizer

SIZES = {"vocab_size": 97, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}


def bert() -> BertLMHeadModel:
    return BertLMHeadModel(BertConfig(hidden_size=32, **SIZES))


def t5() -> T5ForConditionalGeneration:
    config = T5Config(vocab_size=97, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return T5ForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("model", "reason"), [(bert, "causal|straight"), (t5, "no causal language model of this type")]
)
def test_a_model_that_is_no_decoder_is_refused_before_any_work(model, reason, tmp_path):
    model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=reason):
        run(tiny_job(tmp_path / "model"), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_file_that_is_no_gguf_cant_be_opened(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"not a gguf file")
    with pytest.raises(ModelError, match=r"model\.path=.*bad.gguf is damaged or not whole"):
        run(tiny_job(tmp_path / "bad.gguf"), tmp_path / "run")


def test_an_empty_folder_cant_be_opened(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"model\.path=.*empty can't be opened .*the folder has no config.json"):
        run(tiny_job(tmp_path / "empty"), tmp_path / "run")


def test_a_model_with_code_of_its_own_needs_consent(tmp_path):
    own_code = tmp_path / "own_code"
    own_code.mkdir()
    tiny_tokenizer().save_pretrained(own_code)
    (own_code / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}})
    )
    with pytest.raises(ModelError, match=r"set model\.trust_remote_code=true"):
        run(tiny_job(own_code), tmp_path / "run")
