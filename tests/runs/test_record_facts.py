"""Every field of a record says what its definition says: the values follow the facts."""

import hashlib
import json
import math
import platform
import re
import sys
import time
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from statprune.data.token_windows import TextOrigin
from statprune.evaluation.fidelity import window_fidelity
from statprune.model.coverage import Coverage, KindCoverage
from statprune.model.opened import Opened
from statprune.model.quantization import QuantizedWeights
from statprune.model.saved import SavedModel, Sizes
from statprune.runs import record as records
from statprune.runs.environment import Environment
from statprune.runs.inputs import FileIdentity, InputIdentity
from statprune.runs.measure import memory_result
from statprune.runs.pipeline import record as write
from statprune.runs.pipeline import run
from statprune.runs.prepare import MemoryPlan
from statprune.runs.record import SCHEMA_VERSION
from statprune.runs.store import read_record, read_reports
from statprune.runs.workbench import Workbench
from statprune.walk.activations import Placement
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_tokenizer

WORDS = "a weight is kept, a weight is pruned, and the sum of what is left is what the row gives. " * 60
OVERRIDES = (
    *("method=wanda", "compensation=moments", "save_model=true", "sparsity.ratio=0.6", "model.exclude=[q_proj]"),
    *("calibration=text", "calibration.samples=4", "calibration.seq_len=32", "evaluation.seq_len=16"),
    *("evaluation.datasets=[text]", "evaluation.max_windows=5"),
)


@pytest.fixture(scope="module")
def facts(tiny_folder, tmp_path_factory):
    """A run: its configuration, record, folder, the models before and after, and when it began and ended."""
    base = tmp_path_factory.mktemp("facts")
    for name in ("calibration", "evaluation"):
        (base / f"{name}.txt").write_text(f"The {name} text. {WORDS}")
    paths = [f"{name}.path={base}/{name}.txt" for name in ("calibration", "evaluation")]
    config, begin = tiny_job(tiny_folder, *OVERRIDES, *paths), time.time()
    record = run(config, base / "run")
    end = time.time()
    dense, pruned = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_folder, base / "run" / "model"))
    return SimpleNamespace(**{key: value for key, value in locals().items() if key not in ("tmp_path_factory", "name")})


@pytest.fixture(scope="module")
def dense_record(facts, tiny_folder, tmp_path_factory):
    """The record of a run that only measures."""
    return run(tiny_job(tiny_folder, "method=dense"), tmp_path_factory.mktemp("dense"))


def matrices(model):
    """The stored weights of all blocks' matrices, by full name."""
    return {name: value.data for name, value in model.named_parameters() if ".layers." in name and value.ndim == 2}


def test_perplexity(facts):
    own, text = facts.record.perplexity["text"], (facts.base / "evaluation.txt").read_text()
    ids = tiny_tokenizer()(text)["input_ids"]
    assert (own.source, own.seq_len, own.windows, own.tokens) == ("text", 16, 5, 5 * 15)
    assert own.windows_with_bos == 0 and own.skipped_rows == 0  # the tokenizer puts none in
    assert own.text_tokens == len(ids) and own.sha256 == hashlib.sha256(text.encode()).hexdigest()
    windows = torch.tensor(ids[: 5 * 16]).view(5, 16)
    for model, value in ((facts.dense, own.dense), (facts.pruned, own.pruned)):
        with torch.no_grad():
            losses = [float(model(input_ids=row[None], labels=row[None]).loss) for row in windows]
        assert math.exp(sum(losses) / 5) == pytest.approx(value, rel=1e-5)


def test_windows_have_the_losses_of_the_perplexity(facts):
    table = pandas.read_parquet(facts.base / "run" / "windows.parquet")
    own = facts.record.perplexity["text"]
    assert math.exp(table.dense_loss.mean()) == pytest.approx(own.dense) and len(table) == own.windows
    assert math.exp(table.pruned_loss.mean()) == pytest.approx(own.pruned) and table.tokens.sum() == own.tokens


def test_fidelity(facts):
    own, text = facts.record.fidelity["text"], (facts.base / "evaluation.txt").read_text()
    windows = torch.tensor(tiny_tokenizer()(text)["input_ids"][: 5 * 16]).view(5, 16)
    wanted = window_fidelity(facts.dense, facts.pruned, windows)
    table = pandas.read_parquet(facts.base / "run" / "windows.parquet")
    assert table.divergence.tolist() == wanted.divergence.tolist()  # to the last bit
    assert table.agreement.tolist() == wanted.agreement.tolist()
    assert own.divergence == wanted.divergence.mean().item() > 0 and own.windows == 5
    assert own.agreement == wanted.agreement.mean().item()


def test_calibration(facts):
    own, text = facts.record.calibration, (facts.base / "calibration.txt").read_text()
    tokens = len(tiny_tokenizer()(text)["input_ids"])
    assert (own.source, own.text_tokens) == ("text", tokens)
    assert own.sha256 == hashlib.sha256(text.encode()).hexdigest()
    wanted = torch.randint(0, tokens - 32 - 1, (4,), generator=torch.Generator().manual_seed(0))
    assert own.starts == wanted.tolist()


def test_sparsity(facts):
    own, weights = facts.record.sparsity, matrices(facts.pruned)
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert own.target == 0.6
    assert own.achieved == sum(zeros.values()) / sum(weight.numel() for weight in weights.values())
    for index, share in enumerate(own.blocks):
        names = [name for name in weights if f".layers.{index}." in name and "q_proj" not in name]
        assert share == pytest.approx(sum(zeros[name] for name in names) / sum(weights[name].numel() for name in names))


def test_the_saved_model_and_the_files(facts):
    own, folder = facts.record.saved, facts.base / "run"
    shard = folder / "model" / "model.safetensors"
    assert own.shards == {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest()}
    stored = load_file(shard)
    assert (own.tensors, own.own_dtype) == (len(stored), 0)
    assert own.bytes == sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    for name, digest in read_record(folder).files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert {"blocks.jsonl", "windows.parquet"} <= read_record(folder).files.keys()
    assert facts.record.opened.ignored_tensors == 0 and facts.record.opened.warnings == []
    assert facts.record.opened.ignored == [] and facts.record.resumed_blocks == 0


def test_coverage(facts):
    own, weights = facts.record.coverage, matrices(facts.dense)
    skipped = sum(weight.numel() for name, weight in weights.items() if "q_proj" in name)
    total = sum(weight.numel() for weight in weights.values())
    assert (own.prunable, own.pruned, own.skipped) == (total - skipped, total - skipped, skipped)
    assert own.pruned == sum(report.weights for report in read_reports(facts.base / "run"))
    for key in ("prunable", "pruned", "skipped"):
        assert getattr(own, key) == sum(getattr(kind, key) for kind in own.kinds.values())
    assert vars(own.kinds["self_attn.q_proj"]) == {
        "prunable": 0,
        "pruned": 0,
        "skipped": skipped,
        "reasons": {"excluded": skipped},
    }
    assert (own.experts_with_pooled_statistics, own.experts_without_tokens) == (0, 0)  # it has no experts


def test_correction(facts):
    own = facts.record.correction
    judged = [report.diagnostics for report in read_reports(facts.base / "run")]
    assert own.corrected == sum(numbers["corrected"] for numbers in judged)
    assert own.corrected + own.unchanged == len(judged)
    for key in ("output_error_before", "output_error_after", "mean_shift_before", "mean_shift_after"):
        assert getattr(own, key) == pytest.approx(sum(numbers[key] for numbers in judged) / len(judged))
    assert own.output_error_after <= own.output_error_before


def test_seconds(facts):
    own = facts.record.seconds
    assert set(own) == {"load", "calibrate", "find", "evaluate", "observe", "solve", "propagate", "save"}
    assert all(value > 0 for value in own.values()) and sum(own.values()) <= facts.end - facts.begin
    assert sum(report.seconds for report in read_reports(facts.base / "run")) <= own["solve"]


def test_memory(facts, monkeypatch):
    own = facts.record.memory
    assert own.load_peak_host_bytes > 0 and own.predicted_host_bytes > 0 and own.activations == "device"
    assert own.dense_states == "device"
    assert (own.peak_device_bytes, own.predicted_device_bytes) == (0, 0)  # on the CPU
    monkeypatch.setattr("statprune.runs.measure.peak_host", lambda: 7)
    plan = MemoryPlan(Placement.disk, SimpleNamespace(host=5, device=3), load_peak=2, waits=True)
    assert vars(memory_result(plan, torch.device("cpu"))) == {
        "peak_host_bytes": 7,
        "predicted_host_bytes": 5,
        "load_peak_host_bytes": 2,
        "peak_device_bytes": 0,
        "predicted_device_bytes": 3,
        "activations": "disk",
        "dense_states": None,
    }


def test_date(facts):
    when = datetime.fromisoformat(facts.record.date)
    assert when.utcoffset().total_seconds() == 0 and int(facts.begin) <= when.timestamp() <= facts.end


def test_environment(facts):
    own = facts.record.environment
    assert own.python == sys.version.split()[0] and own.platform == platform.platform()
    assert own.packages["torch"] == torch.__version__ and own.threads == torch.get_num_threads()
    assert own.processes == 1 and own.device == f"cpu ({platform.machine()})" and facts.record.resumed is None


def test_a_run_that_goes_on_elsewhere_says_where(facts, tmp_path):
    other = replace(facts.record.environment, threads=999)
    pending = replace(facts.record, environment=other, date="2020-01-01T00:00:00+00:00")
    own = {"folder": tmp_path, "inputs": {}, "seconds": {}, "save_problem": None, "complete_reports": lambda: None}
    context = SimpleNamespace(config=facts.config, device=torch.device("cpu"), **own)
    result = write(context, SimpleNamespace(record=pending, model_folder=None))
    assert result.environment == other and result.resumed == facts.record.environment
    assert result.inputs == facts.record.inputs and result.date > pending.date


def test_configuration(facts):
    assert facts.record.config == facts.config.resolved() and facts.record.config_hash == facts.config.hash()


def test_paths_and_inputs(facts, tiny_folder):
    record = facts.record
    wanted = {f"{part}.path": facts.base / f"{part}.txt" for part in ("calibration", "evaluation")}
    wanted |= {"folder": facts.base / "run", "model.path": tiny_folder}
    assert record.paths == {key: str(path.resolve()) for key, path in wanted.items()}
    assert set(record.inputs) == set(wanted) - {"folder"}
    file, own = tiny_folder / "model.safetensors", record.inputs["model.path"]
    assert own.files[file.name] == FileIdentity(
        size=file.stat().st_size,
        mtime_ns=file.stat().st_mtime_ns,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        is_whole=True,
    )
    assert own.commit is None


def test_reused(facts, tmp_path):
    bench = Workbench(holds_model=True)
    first, second = (run(facts.config, tmp_path / name, bench) for name in "ab")
    assert facts.record.reused == first.reused == []
    assert second.reused == ["the model", "the evaluation tokens", "the calibration tokens", "the dense perplexity"]
    assert second.perplexity == first.perplexity and second.sparsity == first.sparsity


def test_what_a_run_does_not_have(facts):
    assert facts.record.pending is None and facts.record.zero_shot is None and facts.record.quantization is None
    assert facts.record.pushed is None and facts.record.saved.compressed is None
    assert facts.record.schema_version == SCHEMA_VERSION


def test_the_record_is_the_file(facts):
    assert read_record(facts.base / "run") == facts.record
    text = (facts.base / "run" / "result.json").read_text()
    assert "NaN" not in text and "Infinity" not in text and json.loads(text)["config_hash"] == facts.record.config_hash


def test_a_run_that_only_measures(dense_record):
    own = dense_record.perplexity["bundled"]
    assert own.pruned == own.dense and dense_record.fidelity is None
    assert (dense_record.calibration, dense_record.correction) == (None, None) and not dense_record.is_pruned
    sparsity = dense_record.sparsity
    assert (sparsity.target, sparsity.achieved, set(sparsity.blocks)) == (None, 0.0, {None})
    assert dense_record.coverage.pruned == 0 < dense_record.coverage.prunable
    assert dense_record.memory.activations == "none"
    assert {"observe", "solve", "propagate", "calibrate"}.isdisjoint(dense_record.seconds)


# by class: the test of its fields; a new field or class needs an entry
TESTS = {
    "RunRecord": "test_the_record_is_the_file",
    "PerplexityResult": "test_perplexity",
    "FidelityResult": "test_fidelity",
    "QuantizationResult": "test_what_a_run_does_not_have",
    "QuantizedModelResult": "test_what_a_run_does_not_have",
    "QuantizedWeights": "test_what_a_run_does_not_have",
    "SparsityResult": "test_sparsity",
    "CorrectionResult": "test_correction",
    "MemoryResult": "test_memory",
    "Pending": "test_what_a_run_does_not_have",
    "Environment": "test_environment",
    "InputIdentity": "test_paths_and_inputs",
    "FileIdentity": "test_paths_and_inputs",
    "Coverage": "test_coverage",
    "KindCoverage": "test_coverage",
    "TextOrigin": "test_calibration",
    "Opened": "test_the_saved_model_and_the_files",
    "SavedModel": "test_the_saved_model_and_the_files",
    "Sizes": "test_what_a_run_does_not_have",
    "PushedModel": "test_what_a_run_does_not_have",
}
ELSEWHERE = {  # tests of fields that this module does not read
    "git_commit": "tests/runs/test_environment.py",
    "has_local_changes": "tests/runs/test_environment.py",
    **dict.fromkeys(("scheme", "bits", "group_size", "library", "model_bytes"), "tests/runs/test_quantized.py"),
    **dict.fromkeys(("zeros_kept", "zeros_after", "left", "packed_bytes"), "tests/model/test_quantization.py"),
    "evaluation": "tests/runs/test_resume.py",
    "model": "tests/runs/test_resume.py",
    "compressed": "tests/runs/test_compressed_run.py",
    "matrices": "tests/runs/test_compressed_run.py",
    "repository": "tests/runs/test_pushing.py",
    "commit": "tests/runs/test_pushing.py",
}


def test_every_field_of_a_record_is_looked_at():
    classes = [value for value in vars(records).values() if is_dataclass(value) and value.__name__ in TESTS]
    others = (Environment, InputIdentity, FileIdentity, Coverage, KindCoverage, TextOrigin, Opened, SavedModel, Sizes)
    others += (QuantizedWeights,)
    classes += [cls for cls in others if cls not in classes]
    assert {cls.__name__ for cls in classes} == set(TESTS) and set(TESTS.values()) <= set(globals())
    root = Path(__file__).parents[2]
    text = Path(__file__).read_text(encoding="utf-8")
    for cls in classes:
        for item in fields(cls):
            own = (root / ELSEWHERE[item.name]).read_text(encoding="utf-8") if item.name in ELSEWHERE else text
            assert re.search(rf"\b{item.name}\b", own), f"{cls.__name__}.{item.name} is looked at by no test"
