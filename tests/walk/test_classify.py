"""Which matrices are pruned, and which are skipped and why."""

import pytest
import torch
from torch import nn

from statprune.core.methods import get_method
from statprune.core.patterns import NofM
from statprune.errors import ModelError
from statprune.model.coverage import measure_coverage, sparsity
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.walk.discover import find_blocks
from tests.helpers.blocks import LinearBlock, RoutedBlock
from tests.helpers.families import Model, tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)


@pytest.fixture(scope="module")
def mixture():
    return tiny_model("Qwen3MoeConfig")


def skipped(blocks):
    """Kind and reason of every matrix that is not pruned."""
    return {(matrix.kind, matrix.reason) for block in blocks for matrix in block.skipped}


def test_routers_are_skipped_by_default(mixture):
    assert skipped(find_blocks(mixture, WINDOWS)) == {("mlp.gate", "router")}


def test_routers_are_pruned_where_asked_for(mixture):
    assert not skipped(find_blocks(mixture, WINDOWS, prune_routers=True))


def test_matrices_whose_names_match_are_excluded(mixture):
    first, second = find_blocks(mixture, WINDOWS, exclude=[r"layers\.1\.", r"[vo]_proj$"])
    assert not second.matrices
    assert {matrix.kind for matrix in first.skipped if matrix.reason == "excluded"} == {
        "self_attn.v_proj",
        "self_attn.o_proj",
    }


def test_an_expression_that_matches_no_name_is_refused(mixture):
    with pytest.raises(ModelError, match=r"model.exclude: layers\\.7 is found in no layer's name"):
        find_blocks(mixture, WINDOWS, exclude=[r"layers\.7"])


def test_excluding_everything_is_refused(mixture):
    with pytest.raises(ModelError, match="leaves nothing to prune"):
        find_blocks(mixture, WINDOWS, exclude=["layers"])


def test_the_experts_of_a_module_list_are_one_mixture():
    (block,) = find_blocks(Model(RoutedBlock()), WINDOWS)
    assert [(matrix.kind, matrix.expert) for matrix in block.matrices if matrix.stack] == [
        ("experts.*.weight", f"experts.{expert}") for expert in range(4)
    ]


class Router(RoutedBlock):
    """A router in higher precision, of as many outputs as experts or more, beside a matrix of its size."""

    def __init__(self, outputs):
        super().__init__()
        self.mixture = nn.Module()
        self.mixture.experts, self.mixture.gate = self.experts, nn.Linear(16, outputs, bias=False)
        self.k_proj = nn.Linear(16, 4 if outputs == 4 else 8, bias=False)
        del self.experts

    def forward(self, hidden_states):
        scores = nn.functional.linear(hidden_states.float(), self.mixture.gate.weight.float())
        scores.topk(1)
        output = sum(expert(hidden_states) for expert in self.mixture.experts)
        return self.linear(hidden_states) + output + self.k_proj(hidden_states).mean(-1, keepdim=True)


IN_EVERY_PRECISION = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
OF_EVERY_SIZE = pytest.mark.parametrize("outputs", [4, 6])  # LongCat's has more outputs than there are experts


@IN_EVERY_PRECISION
@OF_EVERY_SIZE
def test_a_router_is_recognised_by_place_and_size(dtype, outputs):
    (block,) = find_blocks(Model(Router(outputs)).to(dtype), WINDOWS)
    assert [(matrix.kind, matrix.reason) for matrix in block.skipped] == [("mixture.gate", "router")]


@IN_EVERY_PRECISION
@OF_EVERY_SIZE
def test_a_router_in_higher_precision_is_pruned_where_asked_for(dtype, outputs):
    model = Model(Router(outputs)).to(dtype)
    blocks = find_blocks(model, WINDOWS, prune_routers=True)
    prune(model, WINDOWS, PruneSpec(get_method("wanda"), NofM(2, 4)), blocks=blocks)
    assert sparsity(blocks) == 0.5 and measure_coverage(blocks).skipped == 0
    assert (model.layers[0].mixture.gate.weight == 0).float().mean() == 0.5


class Gated(LinearBlock):
    """A gate with one output beside the block's matrix."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(16, 1, bias=False)

    def forward(self, hidden_states):
        return hidden_states + self.linear(hidden_states) * self.gate(hidden_states)


def test_a_gate_with_one_output_is_skipped():
    assert skipped(find_blocks(Model(Gated()), WINDOWS)) == {("gate", "gate")}
