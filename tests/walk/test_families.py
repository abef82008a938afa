"""Every decoder family on tiny random models: the walk, exact sparsity, coverage, save and reload."""

import copy
import itertools
from dataclasses import dataclass

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import NofM, Unstructured
from statprune.model.coverage import measure_coverage
from statprune.model.matrix import Block
from statprune.model.saving import save_model
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneRuntime, PruneSpec
from statprune.walk.batches import capture
from statprune.walk.discover import eager_experts, find_blocks
from tests.helpers.families import COMMON, FAMILIES, UNUSUAL, tiny_model
from tests.helpers.loading import loaded
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)
METHODS = {
    "wanda": ("wanda", None),
    "cvr+energy": ("cvr", Energy()),
    "sparsegpt": ("sparsegpt", None),
    "magnitude+moments": ("magnitude", Moments(samples=64)),
}
HALF_PRECISION = ["LlamaConfig", "Gemma3TextConfig", "GPT2Config", "MixtralConfig", "GptOssConfig"]


@pytest.fixture(scope="module")
def dense():
    """The family's dense model, made once; tests work on copies."""
    models = {}

    def get(name):
        if name not in models:
            models[name] = tiny_model(name)
        return copy.deepcopy(models[name])

    return get


@torch.no_grad()
def logits(model, windows=WINDOWS):
    with eager_experts(model):
        return model(windows, use_cache=False).logits


@torch.no_grad()
def walked_logits(model, blocks):
    """Logits with every block run by our loop: the last block gives the model's forward what the loop computed."""
    parts = []
    with eager_experts(model):
        for batch in capture(model, blocks, WINDOWS, batch_size=3):
            for block in blocks:
                batch.hidden = batch.run(block)
            rows = WINDOWS[sum(map(len, parts)) :][: len(batch.hidden)]
            last = blocks[-1]
            output = batch.hidden if last.extra_outputs is None else (batch.hidden, *last.extra_outputs)
            hook = last.module.register_forward_hook(lambda *_, output=output: output)
            parts.append(model(rows, use_cache=False).logits)
            hook.remove()
    return torch.cat(parts)


def stored_matrices(blocks):
    """Full name and weight, (out_features, in_features), of all matrices."""
    for block in blocks:
        for matrix in block.matrices:
            yield block.full_name(matrix), matrix.stored.T if matrix.transposed else matrix.stored


def assert_same_matrices(blocks, other):
    for (name, weight), (_, reloaded) in zip(stored_matrices(blocks), stored_matrices(other), strict=True):
        assert torch.equal(weight, reloaded) and weight.dtype == reloaded.dtype, name


def half_of_each_group_of_four(weight):
    return bool(((weight == 0).unflatten(1, (-1, 4)).sum(-1) == 2).all())


@pytest.mark.parametrize("name", [*FAMILIES, *UNUSUAL])
def test_ratio_zero_is_bit_equal_through_our_walk(name, dense):
    model = dense(name)
    blocks = find_blocks(model, WINDOWS)
    wanted = torch.cat([logits(model, rows) for rows in WINDOWS.split(3)])
    prune(model, WINDOWS, PruneSpec(get_method("wanda"), Unstructured(0.0)), PruneRuntime(batch_size=3))
    assert torch.equal(walked_logits(model, blocks), wanted)


@pytest.mark.parametrize("name", [*FAMILIES, *UNUSUAL])
def test_every_decoder_layer_is_a_block(name, dense):
    model = dense(name)
    assert len(find_blocks(model, WINDOWS)) == model.config.num_hidden_layers


SKIPPED = {
    "Llama4TextConfig": {"feed_forward.router": {"router": 256}},
    "JetMoeConfig": {"self_attention.experts.router.layer": {"router": 256}, "mlp.router.layer": {"router": 256}},
    "MambaConfig": {"mixer.A_log": {"no product seen": 2 * 48 * 8}, "mixer.conv1d": {"no product seen": 2 * 48 * 4}},
    "Qwen3NextConfig": {
        "linear_attn.conv1d": {"no product seen": 256},
        "mlp.gate": {"router": 384},
        "mlp.shared_expert_gate": {"gate": 64},
    },
    "BartConfig": {f"encoder_attn.{name}_proj": {"no product seen": 2048} for name in ("k", "v", "q", "out")},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_every_matrix_of_an_unusual_model_is_exactly_half_zero(name, dense):
    model = dense(name)
    blocks = find_blocks(model, WINDOWS)
    spec = PruneSpec(get_method("cvr"), Unstructured(0.5), Energy())
    prune(model, WINDOWS, spec, PruneRuntime(batch_size=3), blocks=blocks)
    for full_name, weight in stored_matrices(blocks):
        assert (weight == 0).float().mean() == 0.5, full_name


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_model_says_what_is_skipped(name, dense):
    kinds = measure_coverage(find_blocks(dense(name), WINDOWS)).kinds
    assert {kind: counts.reasons for kind, counts in kinds.items() if counts.skipped} == SKIPPED.get(name, {})


@dataclass
class Pruned:
    """A pruned model, its blocks, and its weights before."""

    model: PreTrainedModel
    blocks: list[Block]
    before: dict[str, Tensor]


def pruned(model, method, pattern, compensation, batch_size=2):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    blocks = find_blocks(model, WINDOWS)
    spec = PruneSpec(get_method(method), pattern, compensation, min_expert_tokens=8)
    prune(model, WINDOWS, spec, PruneRuntime(batch_size=batch_size))
    return Pruned(model, blocks, before)


@pytest.fixture(scope="module", params=FAMILIES)
def by_every_method(request, dense):
    """The family's model pruned by every method to 50% and to 2:4, by (method, pattern)."""
    patterns = (Unstructured(0.5), NofM(2, 4))
    return {
        (method, pattern): pruned(dense(request.param), method, pattern, compensation)
        for (method, compensation), pattern in itertools.product(METHODS.values(), patterns)
    }


def test_every_matrix_is_exactly_half_zero(by_every_method):
    for case, result in by_every_method.items():
        for name, weight in stored_matrices(result.blocks):
            assert (weight == 0).float().mean() == 0.5, (name, case)


def test_every_group_of_four_is_exactly_half_zero(by_every_method):
    for (method, pattern), result in by_every_method.items():
        for name, weight in stored_matrices(result.blocks) if isinstance(pattern, NofM) else ():
            assert half_of_each_group_of_four(weight), (name, method)


def test_every_row_is_exactly_half_zero_by_wanda(by_every_method):
    for name, weight in stored_matrices(by_every_method["wanda", Unstructured(0.5)].blocks):
        assert ((weight == 0).sum(1) == weight.shape[1] // 2).all(), name


def test_pruning_changes_every_matrix_and_nothing_else(by_every_method):
    for case, result in by_every_method.items():
        touched = {f"{block.path}.{matrix.parameter_name}" for block in result.blocks for matrix in block.matrices}
        for key, value in result.model.state_dict().items():
            assert torch.equal(value, result.before[key]) != (key in touched), (key, case)


@pytest.fixture(scope="module")
def reloaded(by_every_method, tmp_path_factory):
    """The last of the pruned models and its blocks, and what transformers opens once it is saved."""
    last, folder = list(by_every_method.values())[-1], tmp_path_factory.mktemp("reloaded")
    save_model(loaded(last.model), folder)
    return last.model, last.blocks, AutoModelForCausalLM.from_pretrained(folder)


def test_a_pruned_model_gives_the_same_logits_after_a_reload(reloaded):
    model, _, again = reloaded
    assert torch.equal(logits(again), logits(model))


def test_a_pruned_models_matrices_survive_a_reload(reloaded):
    _, blocks, again = reloaded
    assert_same_matrices(blocks, find_blocks(again, WINDOWS))


def test_tied_embeddings_are_tied_after_a_reload(reloaded):
    model, _, again = reloaded
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (again.get_input_embeddings().weight is again.get_output_embeddings().weight)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_matrices_are_covered(name, dense):
    """Counted by the parameters' shapes alone; vectors of experts' biases are two-dimensional, too."""
    blocks = find_blocks(dense(name), WINDOWS)
    coverage = measure_coverage(blocks)
    total = sum(
        parameter.numel()
        for block in blocks
        for key, parameter in block.module.named_parameters()
        if parameter.ndim >= 2 and not key.endswith("_bias")
    )
    assert coverage.prunable + coverage.skipped == total


@pytest.mark.parametrize("name", FAMILIES)
def test_only_routers_of_mixtures_are_skipped(name, dense):
    model = dense(name)
    coverage = measure_coverage(find_blocks(model, WINDOWS))
    assert set().union(*(kind.reasons for kind in coverage.kinds.values())) <= {"router"}
    experts = getattr(model.config, "num_local_experts", getattr(model.config, "num_experts", None))
    assert (coverage.skipped > 0) == bool(experts)


@pytest.fixture(
    scope="module",
    params=itertools.product(HALF_PRECISION, [torch.bfloat16, torch.float16], [Energy(), Moments(groups=2)]),
    ids=lambda case: f"{case[0]}-{case[1]}-{type(case[2]).__name__.lower()}",
)
def half_precision(request, dense, tmp_path_factory):
    """A model pruned in half precision: its precision, the model, its blocks, and what is opened once it is saved."""
    name, dtype, compensation = request.param
    folder = tmp_path_factory.mktemp("half")
    dense(name).save_pretrained(folder / "dense")  # and not .to(dtype), which would round rotary frequencies, too
    model = AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=dtype)
    blocks = pruned(model, "cvr", NofM(2, 4), compensation, batch_size=3).blocks
    save_model(loaded(model), folder / "pruned")
    return dtype, model, blocks, AutoModelForCausalLM.from_pretrained(folder / "pruned")


def test_half_precision_survives_a_reload(half_precision):
    dtype, _, blocks, again = half_precision
    assert again.dtype == dtype
    assert all(weight.dtype == dtype for _, weight in stored_matrices(blocks))


def test_a_model_pruned_in_half_precision_gives_the_same_logits_after_a_reload(half_precision):
    _, model, _, again = half_precision
    assert torch.equal(logits(again), logits(model))


def test_a_model_pruned_in_half_precision_keeps_its_zeros_through_a_reload(half_precision):
    _, _, blocks, again = half_precision
    other = find_blocks(again, WINDOWS)
    assert_same_matrices(blocks, other)
    assert all(half_of_each_group_of_four(weight) for _, weight in stored_matrices(other))


@pytest.fixture(scope="module")
def multimodal():
    """Gemma 3 with its vision tower, which is not decoder blocks, pruned."""
    text = transformers.Gemma3TextConfig(**(COMMON | FAMILIES["Gemma3TextConfig"]))
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    return pruned(AutoModelForCausalLM.from_config(config).eval(), "wanda", Unstructured(0.5), None, batch_size=None)


def test_a_multimodal_models_language_blocks_are_its_blocks(multimodal):
    assert len(multimodal.blocks) == 3
    assert all("language_model.layers" in block.path for block in multimodal.blocks)


def test_only_a_multimodal_models_language_blocks_are_pruned(multimodal):
    after = multimodal.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, multimodal.before[name])}
    assert len(changed) == 3 * 7 and all("language_model.layers" in name for name in changed)


def test_a_multimodal_model_gives_the_same_logits_after_a_reload(multimodal, tmp_path):
    save_model(loaded(multimodal.model), tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(multimodal.model))


@pytest.mark.parametrize("name", ["OPTConfig", "FalconConfig", "BloomConfig"])
def test_the_batch_size_changes_no_weight_where_inputs_are_flattened(name, dense):
    """OPT hands its second linears (tokens, features)."""
    models = [dense(name) for _ in range(2)]
    for model, batch_size in zip(models, (1, 3), strict=True):
        spec = PruneSpec(get_method("sparsegpt"), Unstructured(0.5))
        prune(model, WINDOWS, spec, PruneRuntime(batch_size=batch_size))
    for key, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[key]), key
