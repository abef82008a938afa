"""The table of predicted memory: shapes without values give what a real model gives."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.memory import Shape, blocks_of, built, need_of
from benchmarks.methods import prepared
from statprune import LoadedModel, find_blocks
from statprune.model.loading import ModelSource
from statprune.pruning.budget import TokenBatch

TINY = Shape(hidden=32, intermediate=48, blocks=2, heads=4, pairs=2, vocabulary=64)
BLOCK = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 32)  # bytes in bfloat16: q, o; k, v; the MLP; two norms


def test_the_matrices_are_those_that_are_found_in_a_real_model():
    shapes = built(TINY)
    model = LlamaForCausalLM(LlamaConfig(**shapes.config.to_diff_dict())).eval()
    loaded = LoadedModel(model, PreTrainedTokenizerFast.__new__(PreTrainedTokenizerFast), None, ModelSource("tiny"))
    found = find_blocks(loaded, torch.randint(64, (2, 8)))
    described = blocks_of(shapes, streamed=False)
    for real, own in zip(found, described, strict=True):
        assert {each.name: each.shape for each in real.matrices} == {each.name: each.shape for each in own.matrices}


@pytest.mark.parametrize("streamed", [False, True])
def test_what_stays_on_the_gpu(streamed):
    need = need_of(TINY, prepared("wanda"), streamed, TokenBatch(4, 16), evaluated=3)
    embeddings_head_and_norm = 2 * (2 * 64 * 32 + 32)
    assert need.weights == 2 * BLOCK + embeddings_head_and_norm
    assert need.held == (embeddings_head_and_norm if streamed else need.weights)
    assert need.memory.blocks == (2 * BLOCK if streamed else 0)
    assert need.hidden == 2 * 32 * 16 * (4 + 3)  # calibration and evaluation windows


def test_gram_matrices_count():
    few, many = (need_of(TINY, prepared(name), False, TokenBatch(4, 16), 3).memory for name in ("wanda", "sparsegpt"))
    assert many.statistics - few.statistics == 8 * (2 * 32**2 + 48**2) + 8 * 32**2
    assert replace(many, statistics=0, solve=0) == replace(few, statistics=0, solve=0)
