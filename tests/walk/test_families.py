"""Every decoder family on tiny random models: the walk, exact sparsity, coverage, save and reload."""

import copy
import itertools
import json

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import NofM, Unstructured
from statprune.model.loading import coverage, save_model
from statprune.pruning.loop import prune
from statprune.runs.pipeline import run
from statprune.walk.batches import capture
from statprune.walk.discover import eager_experts, find_blocks
from tests.helpers.command import composed
from tests.helpers.families import COMMON, FAMILIES, UNUSUAL, VOCABULARY, tiny
from tests.helpers.models import tiny_tokenizer

WINDOWS = torch.randint(3, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(0))
METHODS = {
    "wanda": ("wanda", None),
    "cvr+energy": ("cvr", Energy()),
    "sparsegpt": ("sparsegpt", None),
    "magnitude+moments": ("magnitude", Moments(samples=64)),
}


@pytest.fixture(scope="module")
def dense():
    """The family's dense model, made once; tests work on copies."""
    models = {}

    def get(name):
        if name not in models:
            models[name] = tiny(name)
        return copy.deepcopy(models[name])

    return get


@torch.no_grad()
def logits(model):
    with eager_experts(model):
        return model(WINDOWS, use_cache=False).logits


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
            output = batch.hidden if last.extra is None else (batch.hidden, *last.extra)
            hook = last.module.register_forward_hook(lambda *_, output=output: output)
            parts.append(model(rows, use_cache=False).logits)
            hook.remove()
    return torch.cat(parts)


def matrices(blocks):
    for block, layer in itertools.chain.from_iterable(zip([b] * len(b.layers), b.layers, strict=True) for b in blocks):
        yield f"{block.path}.{layer.name}", layer.stored.T if layer.transposed else layer.stored


@pytest.mark.parametrize("name", [*FAMILIES, *UNUSUAL])
def test_ratio_zero_is_bit_equal_through_our_walk(name, dense):
    model = dense(name)
    blocks = find_blocks(model, WINDOWS)
    wanted = torch.cat([logits_of(model, rows) for rows in WINDOWS.split(3)])
    prune(model, WINDOWS, get_method("wanda"), Unstructured(0.0), batch_size=3)
    assert torch.equal(walked_logits(model, blocks), wanted)
    assert len(blocks) == model.config.num_hidden_layers


LEFT = {
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
def test_unusual_models_are_pruned_or_say_what_is_left(name, dense):
    model = dense(name)
    blocks = find_blocks(model, WINDOWS)
    prune(model, WINDOWS, get_method("cvr"), Unstructured(0.5), Energy(), blocks=blocks, batch_size=3)
    for full_name, weight in matrices(blocks):
        assert (weight == 0).float().mean() == 0.5, full_name
    kinds = coverage(blocks)["kinds"]
    assert {kind: values["reasons"] for kind, values in kinds.items() if values["left"]} == LEFT.get(name, {})


@torch.no_grad()
def logits_of(model, rows):
    with eager_experts(model):
        return model(rows, use_cache=False).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_every_matrix_is_exactly_half_zero_and_survives_a_reload(name, dense, tmp_path):
    for (method, compensation), pattern in itertools.product(METHODS.values(), (Unstructured(0.5), NofM(2, 4))):
        model = dense(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        blocks = find_blocks(model, WINDOWS)
        prune(model, WINDOWS, get_method(method), pattern, compensation, batch_size=2, min_expert_tokens=8)
        for full_name, weight in matrices(blocks):
            zeros = weight == 0
            assert zeros.float().mean() == 0.5, (full_name, method, pattern)
            if isinstance(pattern, NofM):
                assert (zeros.unflatten(1, (-1, 4)).sum(-1) == 2).all(), (full_name, method)
            elif method == "wanda":
                assert (zeros.sum(1) == weight.shape[1] // 2).all(), full_name
        touched = {f"{block.path}.{layer.parameter_name}" for block in blocks for layer in block.layers}
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]) != (key in touched), key
    save_model(model, tiny_tokenizer(), tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(model))
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (again.get_input_embeddings().weight is again.get_output_embeddings().weight)
    for (full_name, weight), (_, other) in zip(matrices(blocks), matrices(find_blocks(again, WINDOWS)), strict=True):
        assert torch.equal(weight, other), full_name


@pytest.mark.parametrize("name", FAMILIES)
def test_all_matrices_are_found(name, dense):
    """Counted by the parameters' shapes alone; vectors of experts' biases are two-dimensional, too."""
    model = dense(name)
    blocks = find_blocks(model, WINDOWS)
    covered = coverage(blocks)
    total = sum(
        parameter.numel()
        for block in blocks
        for key, parameter in block.module.named_parameters()
        if parameter.ndim >= 2 and not key.endswith("_bias")
    )
    assert covered["prunable"] + covered["skipped"] == total
    assert set().union(*(kind["reasons"] for kind in covered["kinds"].values())) <= {"router"}
    experts = getattr(model.config, "num_local_experts", getattr(model.config, "num_experts", None))
    assert (covered["skipped"] > 0) == bool(experts)


@pytest.mark.parametrize("compensation", [Energy(), Moments(groups=2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["LlamaConfig", "Gemma3TextConfig", "GPT2Config", "MixtralConfig", "GptOssConfig"])
def test_half_precision_keeps_its_zeros_and_dtype_through_a_reload(name, dtype, compensation, dense, tmp_path):
    dense(name).save_pretrained(tmp_path / "dense")  # and not .to(dtype), which would round rotary frequencies, too
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=dtype)
    blocks = find_blocks(model, WINDOWS)
    prune(model, WINDOWS, get_method("cvr"), NofM(2, 4), compensation, batch_size=3, min_expert_tokens=8)
    save_model(model, tiny_tokenizer(), tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == dtype and torch.equal(logits(again), logits(model))
    for (full_name, weight), (_, other) in zip(matrices(blocks), matrices(find_blocks(again, WINDOWS)), strict=True):
        assert weight.dtype == dtype and torch.equal(weight, other), full_name
        assert ((other == 0).unflatten(1, (-1, 4)).sum(-1) == 2).all(), full_name


def test_a_multimodal_models_language_blocks_are_pruned(tmp_path):
    """Gemma 3 with its vision tower: the tower is not decoder blocks, and stays as it is."""
    text = transformers.Gemma3TextConfig(**(COMMON | FAMILIES["Gemma3TextConfig"]))
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blocks = find_blocks(model, WINDOWS)
    prune(model, WINDOWS, get_method("wanda"), Unstructured(0.5), blocks=blocks)
    assert len(blocks) == 3 and all("language_model.layers" in block.path for block in blocks)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert len(changed) == 3 * 7 and all("language_model.layers" in name for name in changed)
    save_model(model, tiny_tokenizer(), tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("name", ["OPTConfig", "FalconConfig", "BloomConfig"])
def test_the_batch_size_changes_no_weight_where_inputs_are_flattened(name, dense):
    """OPT hands its second linears (tokens, features)."""
    models = [dense(name) for _ in range(2)]
    for model, batch_size in zip(models, (1, 3), strict=True):
        prune(model, WINDOWS, get_method("sparsegpt"), Unstructured(0.5), batch_size=batch_size)
    for key, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[key]), key


def test_experts_are_counted_once_in_the_record(dense, tmp_path):
    dense("Qwen3MoeConfig").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    small = ["calibration.samples=2", "calibration.seq_len=16", "evaluation=none", "tracking=disabled"]
    record = run(composed(f"model.path={tmp_path / 'model'}", *small), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "blocks.jsonl").read_text().splitlines()]
    few = {(line["block"], line["expert"]) for line in lines if line["expert"] and line["calibration_tokens"] < 32}
    assert 0 < len(few) <= 12 and record["coverage"]["experts_with_pooled_statistics"] == len(few)
    assert sum(line["calibration_tokens"] for line in lines if line["layer"].endswith("down_proj[0]")) <= 64
