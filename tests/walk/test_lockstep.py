"""propagation=sequential: each matrix is pruned on what the pruned matrices before it produce, in one forward."""

import threading

import pytest
import torch
from torch import nn

from statprune.core.compensation import Energy
from statprune.core.methods import Method, get_method, method_names
from statprune.core.patterns import NofM, Unstructured
from statprune.errors import ModelError
from statprune.model.coverage import sparsity
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneRuntime, PruneSpec
from statprune.walk.discover import find_blocks
from tests.helpers.families import UNUSUAL, Model, tiny_model
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16)
LONGER = random_windows(4, 32)


def sequential(model, method="wanda", pattern=None, batch_size=2, windows=WINDOWS, compensation=None, blocks=None):
    """Prune a model sequentially, by default to half of its weights."""
    pattern = pattern or Unstructured(0.5)
    spec = PruneSpec(get_method(method), pattern, compensation, propagation=Propagation.sequential)
    return prune(model, windows, spec, PruneRuntime(batch_size=batch_size), blocks=blocks)


@torch.no_grad()
def input_norm(model, linear):
    seen = []
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].double().flatten(0, 1)))
    model(WINDOWS)
    hook.remove()
    return torch.cat(seen).square().sum(0).sqrt()


def test_wanda_masks_equal_a_plain_implementation_that_reruns_the_model_for_every_input():
    pruned, model = tiny_llama(), tiny_llama()
    sequential(pruned)
    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        for group in (
            [attention.q_proj, attention.k_proj, attention.v_proj],
            [attention.o_proj],
            [mlp.gate_proj, mlp.up_proj],
            [mlp.down_proj],
        ):
            norm = input_norm(model, group[0])
            for linear in group:
                weight = linear.weight.data
                order = (weight.double().abs() * norm).argsort(dim=1, stable=True)
                weight.scatter_(1, order[:, : weight.shape[1] // 2], 0.0)
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
def test_every_method_reaches_its_sparsity(name, pattern):
    model = tiny_llama()
    sequential(model, name, pattern, compensation=Energy())
    assert sparsity(find_blocks(model, WINDOWS)) == 0.5


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
def test_the_batch_size_changes_no_weight(name, pattern):
    models = [tiny_llama() for _ in range(3)]
    for model, batch_size in zip(models, (1, 3, 5), strict=True):
        sequential(model, name, pattern, batch_size, compensation=Energy())
    for key, value in models[0].state_dict().items():
        assert all(torch.equal(value, model.state_dict()[key]) for model in models[1:]), key


@pytest.mark.parametrize(
    ("propagation", "runs"),
    # batches × blocks; the last block is not propagated
    [("pruned", 3 * (3 + 2)), ("sequential", 3 * 3)],
)
def test_a_block_runs_once_for_every_batch_where_pruned_takes_two_runs(propagation, runs):
    model, calls = tiny_llama(), []
    blocks = find_blocks(model, WINDOWS)
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda *_: calls.append(1))
    spec = PruneSpec(get_method("wanda"), Unstructured(0.5), propagation=propagation)
    prune(model, WINDOWS, spec, PruneRuntime(batch_size=2), blocks=blocks)
    assert len(calls) == runs


DENSE_AND_MIXTURES = ["GPT2Config", "FalconConfig", "OPTConfig", "Gemma3TextConfig", "MixtralConfig", "GptOssConfig"]


@pytest.mark.parametrize("name", [*DENSE_AND_MIXTURES, *sorted(set(UNUSUAL) - {"Gemma3nTextConfig"})])
def test_every_matrix_of_a_family_is_exactly_half_zero(name):
    model = tiny_model(name)
    blocks = find_blocks(model, LONGER)
    sequential(model, "cvr", windows=LONGER, compensation=Energy(), blocks=blocks)
    for block in blocks:
        for matrix in block.matrices:
            assert (matrix.stored == 0).float().mean() == 0.5, block.full_name(matrix)


def test_gemma_3n_which_routes_twice_in_a_block_says_what_to_exclude():
    with pytest.raises(ModelError, match=r"layers\.0\.altup\.modality_router multiplies several.*model\.exclude"):
        sequential(tiny_model("Gemma3nTextConfig"), windows=LONGER)


def test_gemma_3n_is_pruned_once_its_routers_are_excluded():
    model = tiny_model("Gemma3nTextConfig")
    blocks = find_blocks(model, LONGER, ["altup"])
    sequential(model, windows=LONGER, blocks=blocks)
    assert all((matrix.stored == 0).float().mean() == 0.5 for block in blocks for matrix in block.matrices)


class Wayward(nn.Module):
    """``linear`` multiplies two inputs, or only some batches come to it."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first, self.linear = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, hidden_states):
        hidden = self.first(hidden_states)
        if self.way == "twice":
            return hidden + self.linear(self.linear(hidden))
        return hidden + self.linear(hidden) if hidden_states.flatten()[0] > 0 else hidden


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("twice", r"layers\.0\.linear multiplies several inputs.*choose propagation=pruned"),
        (
            "sometimes",
            r"go through layers\.0 by different ways \(layers\.0, layers\.0\.linear\); choose",
        ),
    ],
)
def test_what_can_not_be_walked_in_lockstep_says_so(way, message):
    windows = WINDOWS.clone()
    windows[0, 0], windows[-1, 0] = 3, 90
    model = Model(Wayward(way), hidden=8)
    with torch.no_grad():
        model.embed.weight[:, 0] = torch.where(torch.arange(97) < 50, 1.0, -1.0)
    with pytest.raises(ModelError, match=message):
        sequential(model, windows=windows)


class Failing(Method):
    """A method that solves nothing."""

    needs = get_method("wanda").needs

    def solve(self, weight, statistics, pattern):
        raise ValueError("no luck")


def fail():
    spec = PruneSpec(Failing(), Unstructured(0.5), propagation=Propagation.sequential)
    prune(tiny_llama(), WINDOWS, spec, PruneRuntime(batch_size=1))


def test_a_method_that_fails_names_the_matrix():
    with pytest.raises(ModelError, match=r"layer self_attn\.q_proj of block 0 can't be pruned: no luck"):
        fail()


def test_a_failure_in_the_middle_ends_all_threads():
    before = threading.active_count()
    with pytest.raises(ModelError):
        fail()
    assert threading.active_count() == before
