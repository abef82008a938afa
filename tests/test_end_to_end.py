"""The real model through the command, and the Python interface on a tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune.config.schema import parse_config
from statprune.core.compensation import Energy
from statprune.core.methods import get_method, method_names
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.data.windows import evaluation_windows
from statprune.errors import ConfigError, ModelError
from statprune.evaluate.perplexity import perplexity, window_losses
from statprune.model.loading import sparsity
from statprune.pruning.loop import prune
from statprune.walk.batches import capture
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama


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
    memory = record["memory"]
    assert memory["peak_host_bytes"] / memory["predicted_host_bytes"] == pytest.approx(1, abs=0.3)
    assert "predicted peak memory" in done.stderr and memory["activations"] == "device"
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
    assert sparsity(find_blocks(model, windows.ids)) == record["sparsity"]["achieved"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_walk_gives_the_models_own_hidden_states():
    model, windows = tiny_llama(), ids()
    blocks = find_blocks(model, windows)
    with torch.no_grad():
        batches = capture(model, blocks, windows, 2)
        for block in blocks:
            for batch in batches:
                batch.hidden = batch.run(block)
        walked = torch.cat([model.lm_head(model.model.norm(batch.hidden)) for batch in batches])
        wanted = torch.cat([model(part, use_cache=False).logits for part in windows.split(2)])
    assert torch.equal(walked, wanted)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
@pytest.mark.parametrize("propagation", ["pruned", "dense"])
def test_every_method_reaches_its_sparsity(name, pattern, propagation):
    model = tiny_llama()
    prune(model, ids(), get_method(name), pattern, Energy(), propagation=propagation, batch_size=2)
    assert sparsity(find_blocks(model, ids())) == 0.5


@pytest.mark.parametrize("name", method_names())
def test_the_batch_size_changes_no_weight(name):
    models = [tiny_llama() for _ in range(3)]
    for model, batch_size in zip(models, (1, 3, 5), strict=True):
        prune(model, ids(), get_method(name), Unstructured(0.5), Energy(), batch_size=batch_size)
    for key, value in models[0].state_dict().items():
        assert all(torch.equal(value, model.state_dict()[key]) for model in models[1:]), key


def inputs_of(model, modules, windows):
    inputs = {}

    def keep(name):
        def hook(_, args):
            inputs[name] = args[0].double()

        return hook

    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(windows)
    for hook in hooks:
        hook.remove()
    return inputs


def test_hooks_that_replace_a_blocks_forward_stay():
    """As accelerate's do on a model whose blocks live on several devices."""
    model, calls = tiny_llama(), []
    for layer in model.model.layers:
        plain = layer.forward

        def counted(*args, plain=plain, **kwargs):
            calls.append(1)
            return plain(*args, **kwargs)

        layer.forward = counted
    prune(model, ids(), get_method("wanda"), Unstructured(0.5))
    calls.clear()
    with torch.no_grad():
        model(ids())
    assert len(calls) == 3


def test_wanda_masks_equal_a_plain_implementation_with_propagation():
    pruned, windows = tiny_llama(), ids()
    prune(pruned, windows, get_method("wanda"), Unstructured(0.5), batch_size=2)
    model = tiny_llama()
    for block in model.model.layers:
        linears = {name: child for name, child in block.named_modules() if isinstance(child, torch.nn.Linear)}
        inputs = inputs_of(model, linears, windows)
        for name, linear in linears.items():
            weight = linear.weight.data
            norm = inputs[name].flatten(0, 1).square().sum(0).sqrt()
            order = (weight.double().abs() * norm).argsort(dim=1, stable=True)
            weight.scatter_(1, order[:, : weight.shape[1] // 2], 0.0)
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


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
    assert sparsity(find_blocks(model, ids())) == 0


def test_an_encoder_is_refused():
    from transformers import BertConfig, BertLMHeadModel

    model = BertLMHeadModel(
        BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    ).eval()
    with pytest.raises(ModelError, match=r"causal|straight"):
        prune(model, ids(), get_method("wanda"), Unstructured(0.5))


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


def test_a_method_that_fails_names_the_layer():
    class Failing:
        needs = StatisticsKind.MOMENTS

        def solve(self, weight, statistics, pattern):
            raise ValueError("no solution")

    with pytest.raises(ModelError, match=r"layer self_attn\.q_proj of block 0 can't be pruned: no solution"):
        prune(tiny_llama(), ids(), Failing(), Unstructured(0.5))


def test_the_readmes_python_example_runs(monkeypatch, capsys, tiny_folder):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    lines = re.search(r"## From Python\n\n((?:    .*\n|\n)+)", readme)[1]
    code = textwrap.dedent(lines).replace("load_model()", f"load_model({str(tiny_folder)!r})")
    exec(code.replace("512", "64"), {})
    assert float(capsys.readouterr().out) > 1


def test_a_score_is_a_function_a_registry_entry_and_a_yaml(tmp_path, tiny_folder):
    """The README's own 15 lines, in a copy of the project."""
    root = Path(__file__).parents[1]
    for name in ("statprune", "conf"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    readme = (root / "README.md").read_text()
    code = re.search(r"## Add a score\n[\s\S]*?\n\n((?:       .*\n|\n)+)", readme)[1]
    with (tmp_path / "statprune" / "core" / "scores.py").open("a") as file:
        file.write("\n\n" + textwrap.dedent(code))
    (tmp_path / "conf" / "method" / "column_norm.yaml").write_text("name: column_norm\n")
    (tmp_path / "statprune" / "conf").symlink_to(tmp_path / "conf")  # as the wheel has it
    small = ["calibration.samples=2", "calibration.seq_len=32", "evaluation.max_windows=1", "tracking=disabled"]
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, ''); from statprune.cli import cli; cli()"]
    done = subprocess.run(
        [*command, "method=column_norm", f"model.path={tiny_folder}", *small],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(next((tmp_path / "outputs" / "default").glob("*/result.json")).read_text())
    assert record["config"]["method"] == {"name": "column_norm"} and record["sparsity"]["achieved"] == 0.5
