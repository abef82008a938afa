"""Which matrices read what a norm returned, in families that place norms differently."""

import pytest
import torch
from torch import nn

from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.walk.batches import capture
from statprune.walk.collect import Collector, observe
from statprune.walk.discover import eager_experts, find_blocks
from statprune.walk.norms import NormOutputs, is_norm_output
from tests.helpers.families import tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)
QKV = {f"self_attn.{name}_proj" for name in "qkv"}
FOLLOWING = {
    "LlamaConfig": QKV | {"mlp.gate_proj", "mlp.up_proj"},
    "GPT2Config": {"attn.c_attn", "mlp.c_fc"},
    "Gemma3TextConfig": QKV | {"mlp.gate_proj", "mlp.up_proj"},  # whose norms behind both parts feed nothing
    "FalconConfig": {"self_attention.query_key_value", "mlp.dense_h_to_4h"},  # one norm for both parts
    "MixtralConfig": QKV | {"mlp.experts.gate_up_proj"},  # which reads the rows that the router picked
    "Olmo2Config": set(),  # whose norms are all behind
    "Llama4TextConfig": QKV | {"feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.up_proj"},
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_what_follows_a_norm(name):
    for block in find_blocks(tiny_model(name), WINDOWS):
        assert {matrix.kind for matrix in block.matrices if matrix.follows_norm} == FOLLOWING[name]


@pytest.fixture(scope="module")
def mixture():
    model = tiny_model("MixtralConfig")
    return model, find_blocks(model, WINDOWS)


@pytest.mark.parametrize("least", [0, 10**6])
def test_statistics_tell_it_where_those_of_experts_are_pooled_too(mixture, least):
    model, blocks = mixture
    with eager_experts(model):
        found = observe(blocks[0], capture(model, blocks, WINDOWS, 2), StatisticsKind.MOMENTS, None, False, least)
    assert {matrix.name: found[matrix.name].follows_norm for matrix in blocks[0].matrices} == {
        matrix.name: matrix.kind in FOLLOWING["MixtralConfig"] for matrix in blocks[0].matrices
    }


def test_experts_that_no_token_reached_know_it(mixture):
    block = mixture[1][0]
    collector = Collector(block, StatisticsKind.MOMENTS, None)
    for matrix in block.matrices:
        if matrix.stack is None:
            collector.statistics[matrix.name] = collector.new_statistics(matrix, torch.ones(1, matrix.in_features))
    found = collector.finished(1)
    assert all(found[matrix.name].follows_norm == matrix.follows_norm for matrix in block.matrices)


@pytest.mark.parametrize("propagation", ["pruned", "sequential"])
def test_stade_w_is_wanda_after_norms_and_stade_elsewhere(propagation):
    masks = {}
    for method in ("wanda", "stade", "stade_w"):
        model = tiny_model("GPT2Config")
        blocks = find_blocks(model, WINDOWS)
        prune(model, WINDOWS, PruneSpec(get_method(method), Unstructured(0.5), propagation=propagation), blocks=blocks)
        masks[method] = {matrix.name: matrix.stored != 0 for matrix in blocks[0].matrices}
    for name, mask in masks["stade_w"].items():
        same = "wanda" if name in FOLLOWING["GPT2Config"] else "stade"
        if propagation == "pruned" or name == "attn.c_attn":  # else their inputs differ
            assert torch.equal(mask, masks[same][name])
            assert not torch.equal(mask, masks["stade" if same == "wanda" else "wanda"][name])


class Unscaled(nn.Module):
    """A norm without parameters."""

    def forward(self, hidden):
        return hidden / hidden.square().mean(-1, keepdim=True).sqrt()


@pytest.mark.parametrize(
    ("module", "is_norm"),
    [
        (nn.LayerNorm(8), True),
        (nn.RMSNorm(8), True),
        (nn.LayerNorm(8, elementwise_affine=False), True),
        (Unscaled(), True),
        (nn.GELU(), False),
        (nn.PReLU(), False),  # one parameter for all channels
        (nn.Linear(8, 8), False),
    ],
    ids=str,
)
def test_what_a_norm_is(module, is_norm):
    holder = nn.Sequential(module)
    outputs = NormOutputs({"block": holder})
    rows = holder(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert bool(outputs.of("block")) == is_norm
    if is_norm:
        assert is_norm_output(rows[[3, 1]], outputs.of("block"))
        assert not is_norm_output(2 * rows, outputs.of("block"))
        assert not is_norm_output(rows[:0], outputs.of("block"))
