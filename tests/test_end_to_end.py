"""The real model through the command, and the Python interface on a tiny model."""

import json

import pandas as pd
import pytest
import torch
from conftest import statprune, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune.blocks import capture
from statprune.calibration import calibration_windows, evaluation_windows
from statprune.compensation import Energy
from statprune.config import parse_config
from statprune.data import bundled_text
from statprune.errors import ConfigError, DataError, ModelError
from statprune.evaluate.perplexity import perplexity, window_losses
from statprune.masks import NofM, Unstructured
from statprune.methods import get_method, method_names
from statprune.models import decoder_blocks, load_model, prunable_layers, sparsity
from statprune.prune import prune


def ids(samples=5, seq_len=16, seed=0):
    return torch.randint(0, 97, (samples, seq_len), generator=torch.Generator().manual_seed(seed))


def test_smoke_run_writes_its_record(smoke):
    folder, done = smoke
    record = json.loads((folder / "result.json").read_text())
    values = record["metrics"]["perplexity"]["bundled"]
    assert values["windows"] == 2 and values["seq_len"] == 64 and values["tokens"] == 126
    assert 1 < values["dense"] < values["pruned"]
    assert record["sparsity"]["achieved"] == pytest.approx(0.5, abs=1e-6)
    assert record["coverage"]["pruned"] == record["coverage"]["prunable"] > 100_000_000
    assert record["config"]["sparsity"]["ratio"] == 0.5 and record["config"]["compensation"]["name"] == "energy"
    layers = [json.loads(line) for line in (folder / "blocks.jsonl").read_text().splitlines()]
    assert len(layers) == 30 * 7
    assert all(layer["sparsity"] == 0.5 and 0 < layer["relative_output_error"] < 2 for layer in layers)
    losses = pd.read_parquet(folder / "windows.parquet")
    assert torch.tensor(losses.pruned_loss.to_numpy()).mean().exp().item() == pytest.approx(values["pruned"])
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert "perplexity pruned" in done.stdout and "\x1b" not in done.stdout + done.stderr


def test_saved_model_reloads_with_its_zeros_and_perplexity(smoke):
    folder, _ = smoke
    record = json.loads((folder / "result.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    windows = evaluation_windows(tokenizer, "bundled", 64, 2)
    assert perplexity(model, windows.ids) == pytest.approx(
        record["metrics"]["perplexity"]["bundled"]["pruned"], rel=1e-4
    )
    assert sparsity(decoder_blocks(model)) == record["sparsity"]["achieved"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_walk_gives_the_models_own_hidden_states():
    model, windows = tiny_llama(), ids()
    blocks = decoder_blocks(model)
    with torch.no_grad():
        batches = capture(model, blocks, windows, 2)
        for index, block in enumerate(blocks):
            for batch in batches:
                batch.hidden = batch.run(block, index)
        walked = torch.cat([model.lm_head(model.model.norm(batch.hidden)) for batch in batches])
        wanted = torch.cat([model(part, use_cache=False).logits for part in windows.split(2)])
    assert torch.equal(walked, wanted)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
@pytest.mark.parametrize("propagation", ["pruned", "dense"])
def test_every_method_reaches_its_sparsity(name, pattern, propagation):
    model = tiny_llama()
    prune(model, ids(), get_method(name), pattern, Energy(), propagation=propagation, batch_size=2)
    assert sparsity(decoder_blocks(model)) == 0.5


def inputs_of(model, layers, windows):
    inputs = {}

    def keep(name):
        def hook(_, args):
            inputs[name] = args[0].double()

        return hook

    hooks = [layer.module.register_forward_pre_hook(keep(layer.name)) for layer in layers]
    with torch.no_grad():
        model(windows)
    for hook in hooks:
        hook.remove()
    return inputs


def test_wanda_masks_equal_a_plain_implementation_with_propagation():
    pruned, windows = tiny_llama(), ids()
    prune(pruned, windows, get_method("wanda"), Unstructured(0.5), batch_size=2)
    model = tiny_llama()
    for block in decoder_blocks(model):
        layers = prunable_layers(block)
        inputs = inputs_of(model, layers, windows)
        for layer in layers:
            weight = layer.module.weight.data
            norm = inputs[layer.name].flatten(0, 1).square().sum(0).sqrt()
            order = (weight.double().abs() * norm).argsort(dim=1, stable=True)
            weight.scatter_(1, order[:, : weight.shape[1] // 2], 0.0)
    for a, b in zip(decoder_blocks(pruned), decoder_blocks(model), strict=True):
        for layer, other in zip(prunable_layers(a), prunable_layers(b), strict=True):
            assert torch.equal(layer.parameter, other.parameter)


def test_perplexity_matches_a_loop_over_tokens():
    model, windows = tiny_llama(), ids(3, 8)
    total = []
    for row in windows:
        with torch.no_grad():
            p = model(row[None]).logits[0].double().softmax(-1)
        total.append(-sum(p[t, row[t + 1]].log().item() for t in range(7)) / 7)
    assert window_losses(model, windows, 2).tolist() == pytest.approx(total, rel=1e-5)


def test_a_pattern_that_does_not_fit_changes_nothing():
    model = tiny_llama()
    with pytest.raises(ModelError, match=r"self_attn.q_proj.*not divisible by M=5"):
        prune(model, ids(), get_method("wanda"), NofM(2, 5))
    assert sparsity(decoder_blocks(model)) == 0


def test_an_encoder_is_refused():
    from transformers import BertConfig, BertLMHeadModel

    model = BertLMHeadModel(
        BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    ).eval()
    with pytest.raises(ModelError, match=r"causal|straight"):
        prune(model, ids(), get_method("wanda"), Unstructured(0.5))


def test_bundled_parts_share_no_paragraph():
    parts = [{" ".join(p.split()) for p in bundled_text(part).split("\n\n")} for part in ("calibration", "evaluation")]
    assert len(parts[0]) > 100 and len(parts[1]) > 50 and not parts[0] & parts[1]


def test_missing_and_short_texts_say_so(tmp_path):
    def tokenizer(text, **_):
        return {"input_ids": list(range(len(text.split())))}

    tokenizer.bos_token_id = None
    with pytest.raises(DataError, match="can't be read"):
        calibration_windows(tokenizer, "text", path=str(tmp_path / "no.txt"))
    (tmp_path / "short.txt").write_text("a few words")
    with pytest.raises(DataError, match="too few"):
        calibration_windows(tokenizer, "text", seq_len=16, path=str(tmp_path / "short.txt"))
    with pytest.raises(ModelError, match="does not exist"):
        load_model(str(tmp_path / "no.gguf"))


def test_all_problems_are_reported_together():
    raw = {
        "model": {"path": "x"},
        "method": {"name": "dense"},
        "compensation": {"name": "energy"},
        "sparsity": {"ratio": 1.5},
        "calibration": {"source": "text", "samples": 0},
        "seed": "many",
        "wrong": 1,
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    text = str(caught.value)
    for part in ("outside [0, 1)", "method=dense", "calibration.path", "samples=0", "seed=many", "wrong is not a key"):
        assert part in text


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["sparsity=2_4", "sparsity.ratio=0.5"], "together with keep and of"),
        (["method.alfa=1"], "method.alfa"),
        (["method=wnada", "model.dtpye=auto"], "choose one of cvr, dense, magnitude"),
        (["model.dtpye=auto", "sparsity.ratio=2"], "did you mean model.dtype?"),
        (["model.dtpye=auto", "sparsity.ratio=2"], "outside [0, 1)"),
        (["device=cuda:7"], "device=cuda:7 is not there"),
    ],
)
def test_bad_input_ends_in_a_sentence(overrides, message, tmp_path):
    done = statprune(*overrides, cwd=tmp_path)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_help_and_composed_config(tmp_path):
    assert "statprune method=wanda" in statprune("--help", cwd=tmp_path).stdout
    composed = statprune("method=wanda", "--cfg", "job", cwd=tmp_path).stdout
    assert "name: wanda" in composed and "name: none" in composed
