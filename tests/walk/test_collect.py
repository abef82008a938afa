"""What the matrices of a block see of their inputs: experts their own tokens, others what they share."""

import pytest
import torch
from torch import nn

from statprune.core.gram import GramPrecision
from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.errors import ModelError
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneRuntime, PruneSpec
from statprune.walk.batches import capture
from statprune.walk.collect import observe
from statprune.walk.discover import eager_experts, find_blocks
from tests.helpers.blocks import LinearBlock
from tests.helpers.families import Model, tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)
WANDA = PruneSpec(get_method("wanda"), Unstructured(0.5))


@pytest.fixture(scope="module")
def mixture():
    return tiny_model("Qwen3MoeConfig")


def first_block_statistics(model, **options):
    """Statistics of the first block's inputs, by the names of its matrices."""
    blocks = find_blocks(model, WINDOWS)
    with torch.no_grad(), eager_experts(model):
        batches = capture(model, blocks, WINDOWS, 3)
        return observe(blocks[0], batches, StatisticsKind.GRAM, torch.arange(WINDOWS.numel()), False, **options)


@pytest.fixture(scope="module")
def routed(mixture):
    """The first mixture's inputs, and the numbers of the tokens that its router sends to each expert."""
    seen = {}
    mlp = mixture.model.layers[0].mlp
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.update(inputs=args[0].flatten(0, 1)))
    with torch.no_grad():
        mixture(WINDOWS, use_cache=False)
    handle.remove()
    chosen = (seen["inputs"] @ mlp.gate.weight.T).topk(mixture.config.num_experts_per_tok, dim=1).indices
    tokens = [(chosen == expert).any(1).nonzero().flatten() for expert in range(len(mlp.gate.weight))]
    return seen["inputs"], tokens


@pytest.fixture(scope="module")
def statistics(mixture):
    return first_block_statistics(mixture)


def test_each_expert_has_the_statistics_of_its_own_tokens(routed, statistics):
    inputs, tokens_of = routed
    for expert, tokens in enumerate(tokens_of):
        own, rows = statistics[f"mlp.experts.gate_up_proj[{expert}]"], inputs[tokens].double()
        assert own.count == len(tokens) > 0 and not own.is_pooled
        assert torch.allclose(own.norm, rows.square().sum(0).sqrt(), rtol=1e-4)
        assert torch.allclose(own.variance, rows.var(0, correction=0), rtol=1e-3)


def test_each_experts_second_matrix_has_the_statistics_of_its_own_intermediate_values(mixture, routed, statistics):
    inputs, tokens_of = routed
    experts = mixture.model.layers[0].mlp.experts
    for expert, tokens in enumerate(tokens_of):
        gate, up = (inputs[tokens].float() @ experts.gate_up_proj[expert].T).chunk(2, dim=1)
        middle = (nn.functional.silu(gate) * up).double()
        down = statistics[f"mlp.experts.down_proj[{expert}]"]
        assert down.count == len(tokens)
        assert torch.allclose(down.gram.double(), middle.T @ middle, rtol=1e-3, atol=1e-4)


def test_matrices_of_one_input_share_its_statistics(statistics):
    shared = statistics["self_attn.q_proj"]
    assert shared is statistics["self_attn.k_proj"] is statistics["self_attn.v_proj"]
    assert shared.count == WINDOWS.numel()


@pytest.fixture(scope="module")
def scarce(mixture, routed):
    """Statistics where some experts have fewer tokens than wanted, and which experts these are."""
    _, tokens_of = routed
    least = sorted(map(len, tokens_of))[2]  # two experts or more have fewer
    few = [expert for expert, tokens in enumerate(tokens_of) if len(tokens) < least]
    assert few
    return first_block_statistics(mixture, min_expert_tokens=least), few


def test_an_expert_few_tokens_reach_has_pooled_statistics(routed, scarce):
    (_, tokens_of), (statistics, few) = routed, scarce
    for expert, tokens in enumerate(tokens_of):
        own = statistics[f"mlp.experts.gate_up_proj[{expert}]"]
        assert own.is_pooled == (expert in few)
        assert own.count == (sum(map(len, tokens_of)) if expert in few else len(tokens))


def test_pooled_statistics_are_those_of_the_whole_mixture(routed, scarce):
    (inputs, tokens_of), (statistics, few) = routed, scarce
    rows = torch.cat([inputs[tokens] for tokens in tokens_of]).double()
    pooled = statistics[f"mlp.experts.gate_up_proj[{few[0]}]"]
    assert torch.allclose(pooled.norm, rows.square().sum(0).sqrt(), rtol=1e-4)
    assert torch.allclose(pooled.variance, rows.var(0, correction=0), rtol=1e-3)
    assert torch.allclose(pooled.gram.double(), rows.T @ rows, rtol=1e-3, atol=1e-3)


def test_an_expert_with_pooled_statistics_counts_its_own_tokens(routed, scarce):
    (_, tokens_of), (statistics, few) = routed, scarce
    for expert in few:
        assert statistics[f"mlp.experts.gate_up_proj[{expert}]"].own_count == len(tokens_of[expert])


class Sometimes(LinearBlock):
    """Two matrices that share their input only in batches of ``shared_in`` windows, or only in others."""

    def __init__(self, shared_in):
        super().__init__()
        self.shared_in = shared_in
        self.other = nn.Linear(16, 16, bias=False)

    def forward(self, hidden_states):
        second = hidden_states if len(hidden_states) == self.shared_in else hidden_states.clone()
        return self.linear(hidden_states) + self.other(second)


@pytest.mark.parametrize("shared_in", [3, 1])
def test_inputs_shared_only_in_some_batches_are_never_counted_twice(shared_in):
    with pytest.raises(ModelError, match=r"layers\.0\.other shares its input with other layers only at times"):
        prune(Model(Sometimes(shared_in)), WINDOWS, WANDA, PruneRuntime(batch_size=3))


@pytest.mark.parametrize("shared_in", [3, 1])
def test_a_matrix_that_shares_its_input_only_at_times_can_be_excluded(shared_in):
    model = Model(Sometimes(shared_in))
    blocks = find_blocks(model, WINDOWS, exclude=["other"])
    prune(model, WINDOWS, WANDA, PruneRuntime(batch_size=3), blocks=blocks)
    assert (model.layers[0].linear.weight == 0).float().mean() == 0.5 and model.layers[0].other.weight.all()


def test_tf32_is_refused_where_it_would_change_nothing():
    model = tiny_model("LlamaConfig").bfloat16()
    with pytest.raises(ModelError, match=r"tf32 has no effect on bfloat16 inputs, such as those of self_attn\.q_proj"):
        first_block_statistics(model, precision=GramPrecision.tf32)
