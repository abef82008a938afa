"""Matrices are seen by their products, whatever their layout and whatever multiplies them."""

import pytest
import torch
from torch import nn

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.model.coverage import sparsity
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.walk.batches import capture
from statprune.walk.collect import observe
from statprune.walk.discover import find_blocks
from tests.helpers.blocks import LinearBlock
from tests.helpers.families import Model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)
WANDA_2_4 = PruneSpec(get_method("wanda"), NofM(2, 4))


class Odd(LinearBlock):
    """Matrices stored either way and multiplied from either side, and parameters that are no matrices."""

    def __init__(self):
        super().__init__()
        self.transposed = nn.Parameter(torch.randn(16, 8) * 0.1)  # (in, out)
        self.left = nn.Parameter(torch.randn(16, 8) * 0.1)  # (out, in), multiplied from the left
        self.scale = nn.Parameter(torch.ones(1, 1, 16))
        self.kernel = nn.Parameter(torch.ones(2, 8))

    def forward(self, hidden_states):
        middle = hidden_states @ self.transposed
        back = torch.matmul(self.left, middle.transpose(1, 2)).transpose(1, 2)
        return self.linear(hidden_states) * self.scale * self.kernel.sum() + back


def pruned_odd():
    model = Model(Odd(), Odd())
    prune(model, WINDOWS, WANDA_2_4)
    return model


def test_matrices_of_any_layout_and_product_are_seen():
    block, _ = find_blocks(Model(Odd(), Odd()), WINDOWS)
    sizes = {matrix.name: (matrix.out_features, matrix.in_features) for matrix in block.matrices}
    assert sizes == {"linear": (16, 16), "transposed": (8, 16), "left": (16, 8)}


def test_a_matrix_without_a_product_is_skipped_and_a_vector_is_none():
    block, _ = find_blocks(Model(Odd(), Odd()), WINDOWS)
    assert [(matrix.kind, matrix.reason) for matrix in block.skipped] == [("kernel", "no product seen")]


def test_a_matrix_stored_by_inputs_is_pruned_along_its_inputs():
    transposed = pruned_odd().layers[0].transposed
    assert (transposed.T.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all()


def test_a_matrix_multiplied_from_the_left_is_pruned_along_its_inputs():
    left = pruned_odd().layers[0].left
    assert (left.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all()


def test_a_matrix_without_a_product_counts_in_the_sparsity():
    assert sparsity(find_blocks(pruned_odd(), WINDOWS)) == pytest.approx(0.5 * 512 / 528)


class Hidden(LinearBlock):
    """A block whose product is no matrix product."""

    def forward(self, hidden_states):
        return hidden_states + (hidden_states[..., None, :] * self.linear.weight).sum(-1)


def test_a_matrix_whose_product_is_not_seen_is_skipped():
    blocks = find_blocks(Model(Hidden(), LinearBlock()), WINDOWS)
    assert [len(block.matrices) for block in blocks] == [0, 1]


class Batched(LinearBlock):
    """Three experts in one batched product; a quarter of the tokens reaches none of them."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 16, 16) * 0.1)

    def forward(self, hidden_states):
        tokens = hidden_states.flatten(0, 1)
        mine = (torch.arange(len(tokens)) % 4)[None] == torch.arange(3)[:, None]
        parts = torch.bmm(tokens * mine[:, :, None], self.experts)
        return hidden_states + parts.sum(0).view_as(hidden_states) + self.linear(hidden_states)


def test_experts_of_one_batched_product_are_matrices_each():
    (block,) = find_blocks(Model(Batched()), WINDOWS)
    assert [matrix.name for matrix in block.matrices] == ["experts[0]", "experts[1]", "experts[2]", "linear"]
    assert all(matrix.transposed for matrix in block.matrices[:3])


@torch.no_grad()
def test_rows_of_zeros_in_a_batched_product_are_other_experts_tokens():
    model = Model(Batched())
    (block,) = find_blocks(model, WINDOWS)
    statistics = observe(block, capture(model, [block], WINDOWS, 4), StatisticsKind.MOMENTS, None, False)
    tokens = model.embed(WINDOWS).flatten(0, 1).double()
    for expert in range(3):
        own = statistics[f"experts[{expert}]"]
        assert own.count == WINDOWS.numel() // 4
        assert torch.allclose(own.norm, tokens[expert::4].square().sum(0).sqrt(), rtol=1e-5)


class Heads(LinearBlock):
    """A parameter that stacks heads, used as one matrix."""

    def __init__(self):
        super().__init__()
        self.heads = nn.Parameter(torch.randn(4, 4, 16) * 0.1)

    def forward(self, hidden_states):
        return self.linear(hidden_states) + nn.functional.linear(hidden_states, self.heads.flatten(0, 1))


def test_a_stack_that_is_used_as_one_matrix_is_one():
    (block,) = find_blocks(Model(Heads()), WINDOWS)
    assert {matrix.name: matrix.shape for matrix in block.matrices} == {"linear": (16, 16), "heads": (16, 16)}


def test_a_stack_that_is_used_as_one_matrix_is_pruned_whole():
    model = Model(Heads())
    prune(model, WINDOWS, PruneSpec(get_method("wanda"), Unstructured(0.5)))
    assert (model.layers[0].heads.flatten(0, 1) == 0).sum(1).eq(8).all()


class Grouped(LinearBlock):
    """A matrix of two groups, each with 12 outputs and 8 inputs of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 8) * 0.1)

    def forward(self, hidden_states):
        groups = hidden_states.unflatten(-1, (2, 8)).flatten(0, 1).transpose(0, 1)
        output = torch.bmm(groups, self.weight.view(2, 12, 8).transpose(1, 2))
        return self.linear(hidden_states) + output.mean((0, 2)).view(*hidden_states.shape[:2], 1)


def test_a_matrix_multiplied_in_groups_is_several():
    (block,) = find_blocks(Model(Grouped()), WINDOWS)
    groups = [(matrix.name, matrix.shape) for matrix in block.matrices if matrix.count > 1]
    assert groups == [("weight[0]", (12, 8)), ("weight[1]", (12, 8))]


def test_a_matrix_multiplied_in_groups_is_pruned_group_by_group():
    model = Model(Grouped())
    dense = model.layers[0].weight.detach().clone()
    inputs = model.embed(WINDOWS).detach().flatten(0, 1)
    prune(model, WINDOWS, WANDA_2_4)
    for group in range(2):
        norm = inputs[:, 8 * group : 8 * group + 8].double().norm(dim=0).float()
        part = slice(12 * group, 12 * group + 12)
        keep = NofM(2, 4).select(dense[part].abs() * norm)
        assert torch.equal(model.layers[0].weight[part], dense[part] * keep)
