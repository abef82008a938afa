"""Weights that a model's files hold in another form than the model does are verified as the others are."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2Model

from statprune.runs.pipeline import run
from statprune.runs.saved_run import saved_run
from statprune.runs.verdict import Skip, verdict_on
from statprune.runs.verification import verify
from tests.helpers.command import tiny_job
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_tokenizer

QUICK = ("method=magnitude", "evaluation=none")
# a tensor of the files, the place of an expert in it, and what the model calls the matrix that is broken there
BROKEN = {
    "MixtralConfig": ("model.layers.1.block_sparse_moe.experts.2.w2.weight", (), "mlp.experts.down_proj[2]"),
    "Qwen3MoeConfig": ("model.layers.1.mlp.experts.5.up_proj.weight", (), "mlp.experts.gate_up_proj[5]"),
    "OlmoeConfig": ("model.layers.1.mlp.experts.0.gate_proj.weight", (), "mlp.experts.gate_up_proj[0]"),
    "DeepseekV3Config": ("model.layers.1.mlp.experts.7.down_proj.weight", (), "mlp.experts.down_proj[7]"),
    "GptOssConfig": ("model.layers.1.mlp.experts.down_proj", (3,), "mlp.experts.down_proj[3]"),
    "Llama4TextConfig": ("model.layers.1.feed_forward.experts.down_proj", (1,), "feed_forward.experts.down_proj[1]"),
    "JetMoeConfig": ("model.layers.1.mlp.output_linear.weight", (2,), "mlp.output_linear[2]"),
    "GPT2Config": ("transformer.h.1.attn.c_proj.weight", (), "attn.c_proj"),  # square, and stored transposed
}


def saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def rewrite(folder, name, change):
    """Change a tensor of a saved model's files."""
    file = folder / "model" / "model.safetensors"
    values = {key: value.clone() for key, value in load_file(file).items()}
    change(values[name])
    save_file(values, file, metadata={"format": "pt"})


def refill(*place):
    """Give the first zero of a matrix a value."""

    def change(tensor):
        matrix = tensor[place]
        matrix[tuple((matrix == 0).nonzero()[0])] = 0.25

    return change


def found(folder):
    return {finding.check: finding for finding in verify(saved_run(folder))}


def verdicts(folder):
    """What the checks of files and weights found, right where there is nothing to say."""
    return {check: own.is_right or own.sentence for check, own in found(folder).items() if check != "losses"}


RIGHT = dict.fromkeys(["record", "checksums", "files", "card", "zeros", "untouched"], True)


@pytest.mark.parametrize("family", BROKEN)
def test_an_intact_mixture_is_right_and_a_single_broken_weight_of_one_expert_is_named(family, tmp_path):
    dense = saved(tiny_model(family), tmp_path / "dense")
    run(tiny_job(dense, *QUICK, "sparsity='2_4'", "save_model=true"), tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT | {"groups": True}
    name, place, matrix = BROKEN[family]
    rewrite(tmp_path / "run", name, refill(*place))
    findings = found(tmp_path / "run")
    path = ".".join(name.split(".")[:3])
    assert findings["groups"].sentence == f"groups that are not 2:4: 1 in {path}.{matrix}"
    assert findings["zeros"].is_right is False and f": {matrix} of block 1 has" in findings["zeros"].sentence
    assert findings["untouched"].is_right


@pytest.mark.parametrize("family", ["MixtralConfig", "GptOssConfig"])
def test_so_is_a_mixture_that_is_saved_compressed(family, tmp_path):
    dense = saved(tiny_model(family), tmp_path / "dense")
    run(tiny_job(dense, *QUICK, "sparsity.ratio=0.6", "save_model=compressed"), tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT | {"decompress": True}


def test_so_is_a_mixture_whose_blocks_were_on_disk_and_it_is_not_pruned_again(tmp_path):
    config = tiny_job(saved(tiny_model("MixtralConfig"), tmp_path / "dense"), *QUICK, "offload=disk", "save_model=true")
    run(config, tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT
    assert isinstance(verdict_on(config, tmp_path / "run"), Skip)


def test_an_expert_that_was_not_pruned_is_told_from_its_neighbours_in_one_tensor(tmp_path):
    dense, name = saved(tiny_model("GptOssConfig"), tmp_path / "dense"), "model.layers.0.mlp.experts.down_proj"
    run(tiny_job(dense, *QUICK, "model.exclude=[down_proj.1]", "save_model=true"), tmp_path / "run")
    rewrite(tmp_path / "run", name, lambda tensor: tensor[2].mul_(2))
    assert found(tmp_path / "run")["untouched"].is_right
    rewrite(tmp_path / "run", name, lambda tensor: tensor[1, 0, 0].add_(1))
    assert found(tmp_path / "run")["untouched"].sentence == f"1 tensor that was not pruned differs: {name}"


def test_a_run_in_another_dtype_is_compared_in_it(tiny_folder, tmp_path):
    run(tiny_job(tiny_folder, *QUICK, "model.dtype=bfloat16", "save_model=true"), tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT
    name = "model.norm.weight"
    rewrite(tmp_path / "run", name, lambda tensor: tensor[0].add_(0.01))
    assert found(tmp_path / "run")["untouched"].sentence == f"1 tensor that was not pruned differs: {name}"


def test_a_base_models_names_without_the_prefix_are_found(tmp_path):
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4, architectures=["GPT2LMHeadModel"])
    dense = saved(GPT2Model(shape), tmp_path / "dense")
    assert "h.0.ln_1.bias" in load_file(dense / "model.safetensors")
    run(tiny_job(dense, *QUICK, "save_model=true"), tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT
    name = "transformer.h.0.ln_1.bias"
    rewrite(tmp_path / "run", name, lambda tensor: tensor.add_(1))
    assert found(tmp_path / "run")["untouched"].sentence == f"1 tensor that was not pruned differs: {name}"


def test_weights_that_are_not_finite_are_named_where_no_block_can_be_found(tiny_folder, tmp_path):
    run(tiny_job(tiny_folder, *QUICK, "save_model=true"), tmp_path / "run")
    name = "model.layers.0.self_attn.q_proj.weight"
    rewrite(tmp_path / "run", name, lambda tensor: tensor.fill_(torch.nan))
    findings = found(tmp_path / "run")
    assert findings["finite"].is_right is False
    assert findings["finite"].sentence == f"1 tensor holds NaN or infinite values: {name}"
    assert findings["zeros"].is_right is None and findings["untouched"].is_right is None


def test_a_model_with_code_of_its_own_is_unknown_without_consent(tiny_folder, tmp_path):
    overrides = (*QUICK, "model.trust_remote_code=true", "save_model=true")
    run(tiny_job(tiny_folder, *overrides), tmp_path / "run")
    assert verdicts(tmp_path / "run") == RIGHT
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "run" / "model" / "config.json").write_text(json.dumps(config))
    own = found(tmp_path / "run")["model"]
    assert own.is_right is None and "only with --trust-remote-code" in own.sentence


def test_a_source_of_another_form_is_unknown(tiny_folder, tmp_path):
    dense = tmp_path / "dense"
    shutil.copytree(tiny_folder, dense)
    run(tiny_job(dense, *QUICK, "save_model=true"), tmp_path / "run")
    values = load_file(dense / "model.safetensors")
    values["model.norm.weight"] = values["model.norm.weight"][:8].clone()
    save_file(values, dense / "model.safetensors", metadata={"format": "pt"})
    own = found(tmp_path / "run")["untouched"]
    assert own.is_right is None and "1 tensor could not be compared" in own.sentence
