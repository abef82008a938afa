"""Ways of pruning are tried on some blocks: with the errors that pruning these blocks would have, and no changes."""

import math

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.sparsegpt import SparseGPT
from statprune.pruning.spec import PruneSpec
from statprune.pruning.trial import EXPERTS, Trial, tried_blocks, try_ways
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama

PATTERN = Unstructured(0.5)
WAYS = {name: PruneSpec(get_method(name), PATTERN) for name in ("wanda", "sparsegpt")}


def ids(windows: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 90, (windows, 16), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return tiny_llama().eval()


def tried(model, ways=WAYS, give_up=lambda seconds: set(), full_windows=8):
    windows = ids(8, 0)
    return try_ways(model, find_blocks(model, windows), windows, ids(3, 1), ways, full_windows, give_up)


@pytest.mark.parametrize(
    ("count", "numbers"), [(1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (12, (2, 6, 10)), (30, (5, 15, 25))]
)
def test_tried_blocks_are_spread_over_the_model(count, numbers):
    assert tried_blocks(count) == numbers


def test_errors_are_those_of_the_outputs_on_unseen_windows(model):
    inputs, block = [], model.model.layers[0].mlp.down_proj
    hook = block.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach().flatten(0, -2)))
    with torch.no_grad():
        model(ids(8, 0))
        model(ids(3, 1))
    hook.remove()
    seen, unseen = (each.double() for each in inputs)
    weight = block.weight.detach().double()
    score = weight.abs() * seen.norm(dim=0)
    order = score.argsort(dim=1)
    pruned = weight.clone().scatter_(1, order[:, : weight.shape[1] // 2], 0)
    wanted = (unseen @ (weight - pruned).T).norm() / (unseen @ weight.T).norm()
    errors = tried(model).ways["wanda"].errors
    assert errors["model.layers.0.mlp.down_proj"] == pytest.approx(wanted.item(), rel=1e-4)


def test_the_model_stays_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tried(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_layer_of_the_tried_blocks_is_judged(model):
    trials = tried(model)
    assert trials.blocks == (0, 1, 2)
    assert all(len(way.errors) == 21 and 0 < way.error < 1 for way in trials.ways.values())


def test_a_way_that_can_not_prune_a_layer_is_out_with_its_reason(model):
    ways = WAYS | {"odd": PruneSpec(SparseGPT(block_size=6), NofM(2, 4))}
    trials = tried(model, ways)
    assert "not divisible by M=4" in trials.ways["odd"].problem
    assert math.isnan(trials.ways["odd"].error) and "odd" not in trials.seconds
    assert trials.ways["wanda"].problem is None


def test_a_way_that_is_given_up_is_not_tried_on_the_next_block(model):
    asked = []

    def give_up(seconds):
        asked.append(set(seconds))
        return {"sparsegpt"}

    trials = tried(model, give_up=give_up)
    assert asked == [{"wanda", "sparsegpt"}, {"wanda"}]
    assert trials.ways["sparsegpt"].given_up and len(trials.ways["sparsegpt"].errors) == 7
    assert len(trials.ways["wanda"].errors) == 21


def test_predicted_seconds_grow_with_the_windows_of_the_whole_run(model):
    few, many = tried(model), tried(model, full_windows=8000)
    assert all(many.seconds[name] > few.seconds[name] for name in WAYS)


def test_some_experts_stand_for_all():
    config = MixtralConfig(
        vocab_size=90,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=EXPERTS + 2,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    errors = tried(MixtralForCausalLM(config).eval()).ways["wanda"].errors
    of_experts = {name for name in errors if ".experts." in name}
    assert len(of_experts) == 2 * EXPERTS and len(errors) == len(of_experts) + 4


def test_the_error_of_a_way_is_the_geometric_mean_and_not_a_number_where_one_is_not():
    assert Trial({"a": 0.1, "b": 0.4}).error == pytest.approx(0.2)
    assert math.isnan(Trial({"a": 0.1, "b": math.nan}).error)
    assert math.isnan(Trial().error)
