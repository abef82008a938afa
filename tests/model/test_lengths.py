"""A model's longest input, under whatever name its configuration has it."""

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MptConfig,
    MptForCausalLM,
    PretrainedConfig,
)

from statprune.errors import ModelError
from statprune.evaluation.harness import Harness
from statprune.model.lengths import check_unnamed_limit, probe_window
from statprune.model.loading import check_length, positions
from tests.helpers.models import tiny_llama, tiny_tokenizer

SMALL = {"vocab_size": 97, "n_layer": 1, "n_head": 2}


def mpt() -> MptForCausalLM:
    return MptForCausalLM(MptConfig(vocab_size=97, d_model=16, n_heads=2, n_layers=1, max_seq_len=24))


def test_every_familys_name_of_the_length_is_known():
    gpt2 = GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=16, n_positions=32))
    assert [positions(model) for model in (tiny_llama(), gpt2, mpt())] == [64, 32, 24]


def test_a_left_over_of_another_program_is_no_limit():
    bloom = BloomForCausalLM(BloomConfig(**SMALL, hidden_size=16, seq_length=8))  # its positions are soft
    assert positions(bloom) is None
    check_length(bloom, 4096, "calibration.seq_len=4096")


@pytest.mark.parametrize("name", ["seq_length", "block_size", "ctx_len"])
def test_a_limit_of_the_models_own_code_is_known(name):
    model = tiny_llama()
    model.config = type("OwnConfig", (PretrainedConfig,), {"model_type": "own", name: 16})()
    with pytest.raises(ModelError, match="is longer than the model's 16 positions"):
        check_length(model, 17, "calibration.seq_len=17")


def test_a_sliding_window_is_no_limit():
    model = tiny_llama()
    model.config.sliding_window = 8
    assert positions(model) == 64


def test_a_limit_that_lm_eval_does_not_know_bounds_prompts():
    assert Harness(mpt(), tiny_tokenizer(), 4).max_length == 24


class Learned(nn.Module):
    """A model with eight positions, of which its configuration says nothing."""

    def __init__(self, fails=False):
        super().__init__()
        self.config, self.device, self.fails = PretrainedConfig(), torch.device("cpu"), fails
        self.embed, self.positions = nn.Embedding(97, 4), nn.Embedding(8, 4)

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, use_cache):
        if self.fails:
            raise ValueError("images are needed")
        return self.embed(input_ids) + self.positions(torch.arange(input_ids.shape[1]))


def test_a_limit_that_stands_nowhere_is_found_by_trying():
    check_unnamed_limit(Learned(), 8, "evaluation.seq_len=8")
    with pytest.raises(ModelError, match=r"evaluation\.seq_len=9 is longer than Learned can read .*lower it"):
        check_unnamed_limit(Learned(), 9, "evaluation.seq_len=9")


def test_a_model_that_fails_at_any_length_is_not_blamed_on_its_length():
    check_unnamed_limit(Learned(fails=True), 9, "evaluation.seq_len=9")


def test_a_model_without_windows_is_probed_with_as_many_tokens_as_it_reads():
    assert [probe_window(model).shape for model in (tiny_llama(), mpt(), Learned())] == [(1, 64), (1, 24), (1, 64)]
    mpt()(probe_window(mpt()))
