"""Runs that measure their models quantised, too: record, windows, table, W&B's numbers, refusals."""

import copy
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM

from statprune.analysis.collect import rows_of
from statprune.analysis.measures import MEASURES
from statprune.analysis.tables import units
from statprune.config import quantizing
from statprune.config.compose import compose, plain_values
from statprune.config.naming import name_of
from statprune.errors import ConfigError, ModelError
from statprune.evaluation.fidelity import window_fidelity
from statprune.evaluation.perplexity import window_losses
from statprune.model.quantization import Scheme, library_version, quantized
from statprune.runs import measure, window_passes
from statprune.runs.finals import finals
from statprune.runs.job import _told
from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from statprune.runs.store import read_record
from statprune.runs.summary import print_summary
from statprune.runs.workbench import Workbench
from statprune.walk.discover import find_blocks
from tests.helpers.command import tiny_job

pytest.importorskip("torchao")
OVERRIDES = ("method=wanda", "quantize=int4", "quantize.group_size=8", "save_model=true", "evaluation.max_windows=3")


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """A run that prunes and quantises: its record and folder, and the evaluation windows."""
    folder, windows = tmp_path_factory.mktemp("whole"), {}
    with pytest.MonkeyPatch.context() as patch:
        write = measure.write_windows
        patch.setattr(measure, "write_windows", lambda *own: windows.update(own[1]) or write(*own))
        record = run(tiny_job(tiny_folder, *OVERRIDES), folder)
    return SimpleNamespace(record=record, folder=folder, ids=windows["bundled"].ids)


@pytest.fixture(scope="module")
def bench():
    """What the other runs share."""
    return Workbench(holds_model=True)


@pytest.fixture(scope="module")
def plain(tiny_folder, tmp_path_factory, bench):
    """The record of the same run without quantisation."""
    return run(tiny_job(tiny_folder, *OVERRIDES[:1], *OVERRIDES[-1:]), tmp_path_factory.mktemp("plain"), bench)


def test_dense_and_pruned_are_measured_with_the_weights_that_torchao_makes(whole, tiny_folder):
    own = whole.record.quantization
    dense = AutoModelForCausalLM.from_pretrained(tiny_folder)
    table = pandas.read_parquet(whole.folder / "windows.parquet")
    for name, folder, result in (("dense", tiny_folder, own.dense), ("pruned", whole.folder / "model", own.pruned)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        with quantized(model, find_blocks(model, whole.ids), Scheme("int4", 8)) as weights:
            losses = window_losses(model, whole.ids)
            fidelity = window_fidelity(dense, model, whole.ids)
        assert result.weights == weights and weights.zeros == weights.zeros_kept
        assert result.perplexity == {"bundled": losses.mean().exp().item()}
        assert result.fidelity["bundled"].divergence == pytest.approx(fidelity.divergence.mean().item(), rel=1e-9)
        assert result.fidelity["bundled"].agreement == fidelity.agreement.mean().item()
        assert result.fidelity["bundled"].windows == 3
        assert table[f"{name}_quantized_loss"].tolist() == losses.tolist()
        assert table[f"{name}_quantized_divergence"].tolist() == pytest.approx(fidelity.divergence.tolist())
        assert table[f"{name}_quantized_agreement"].tolist() == fidelity.agreement.tolist()
    assert own.pruned.weights.zeros >= 0.5 * own.pruned.weights.weights > own.dense.weights.zeros
    assert (own.scheme, own.bits, own.group_size) == ("int4", 4, 8)
    assert own.library == f"torchao {library_version()}"
    assert own.model_bytes == sum(4 * value.numel() for value in dense.parameters())


def test_everything_else_is_that_of_the_run_without_it(whole, plain):
    assert whole.record.perplexity == plain.perplexity and whole.record.fidelity == plain.fidelity
    assert whole.record.sparsity == plain.sparsity and plain.quantization is None
    assert "quantize" not in plain.config and "quantize" not in plain.seconds and whole.record.seconds["quantize"] > 0
    assert whole.record.memory.predicted_host_bytes > 0


def test_the_record_is_read_again_and_older_ones_have_none(whole):
    assert read_record(whole.folder) == whole.record
    values = copy.deepcopy(whole.record.to_json())
    del values["quantization"]
    assert RunRecord.from_json(values).quantization is None


def test_the_saved_model_is_not_quantised(whole):
    model = AutoModelForCausalLM.from_pretrained(whole.folder / "model")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert window_losses(model, whole.ids).mean().exp().item() == whole.record.perplexity["bundled"].pruned


def test_a_run_that_prunes_nothing_measures_the_model_quantised(tiny_folder, tmp_path, bench):
    record = run(tiny_job(tiny_folder, "method=dense", "quantize=int8"), tmp_path, bench)
    own = record.quantization
    assert own.pruned is None and own.dense.fidelity["bundled"].divergence > 0 and record.fidelity is None
    assert own.dense.perplexity["bundled"] == pytest.approx(record.perplexity["bundled"].dense, rel=0.05)
    config = tiny_job(tiny_folder, "method=dense", "quantize=int8")
    assert _told(config, tmp_path, record) == ""
    without = replace(record, quantization=replace(own, dense=replace(own.dense, fidelity=None)))
    assert "made without fidelity" in _told(config, tmp_path, without)
    assert "dense_quantized_loss" in pandas.read_parquet(tmp_path / "windows.parquet")


def test_without_fidelity_there_is_perplexity_alone(tiny_folder, tmp_path, capsys, bench):
    record = run(tiny_job(tiny_folder, *OVERRIDES, "evaluation.fidelity=false", "save_model=false"), tmp_path, bench)
    assert record.quantization.pruned.fidelity is None and record.quantization.pruned.perplexity["bundled"] > 0
    print_summary(record, tmp_path)
    assert "not measured" in capsys.readouterr().out


def test_the_table_has_four_models(whole, capsys):
    print_summary(whole.record, whole.folder)
    text, own = capsys.readouterr().out, whole.record
    for name, value in (
        ("dense", own.perplexity["bundled"].dense),
        ("dense + quantised", own.quantization.dense.perplexity["bundled"]),
        ("pruned", own.perplexity["bundled"].pruned),
        ("pruned + quantised", own.quantization.pruned.perplexity["bundled"]),
    ):
        (row,) = re.findall(rf"^│ {re.escape(name)} +│.*", text, re.MULTILINE)
        assert f" {value:.4f} " in row
    weights = own.quantization.pruned.weights
    assert f"{weights.zeros:,} of {weights.zeros:,} zeros are exactly zero afterwards" in text
    assert f"{weights.bytes / 1e6:.2f}" in text and "int4, a scale per 8 inputs" in text


def test_what_is_left_is_told_and_what_is_not_finite_is_in_words(whole, capsys):
    own = whole.record.quantization.pruned
    other = replace(own, weights=replace(own.weights, left={"excluded": 7}), perplexity={"bundled": None})
    print_summary(replace(whole.record, quantization=replace(whole.record.quantization, pruned=other)), whole.folder)
    text = " ".join(capsys.readouterr().out.split())
    assert "7 weights of the blocks are not quantised: excluded" in text and text.count("not finite") == 1


def test_wandb_gets_the_numbers_of_quantised_models(whole):
    own, told = whole.record.quantization, finals(whole.record)
    assert told["perplexity/bundled_quantized"] == own.pruned.perplexity["bundled"]
    assert told["perplexity/bundled_dense_quantized"] == own.dense.perplexity["bundled"]
    assert told["divergence/bundled_quantized"] == own.pruned.fidelity["bundled"].divergence
    assert told["agreement/bundled_dense_quantized"] == own.dense.fidelity["bundled"].agreement
    assert told["bytes/dense"] == own.model_bytes > told["bytes/quantized"] > told["bytes/quantized_packed"]


def test_a_table_shows_the_perplexity_of_the_quantised_model(whole, plain):
    measure_of, folder = MEASURES["perplexity_quantized"], whole.folder
    (row,) = (row for _, row in measure_of.values(pandas.DataFrame(rows_of(whole.record, folder))).iterrows())
    assert row.value == whole.record.quantization.pruned.perplexity["bundled"]
    (losses,) = units("perplexity_quantized", row)
    assert math.exp(losses.mean()) == pytest.approx(row.value)
    assert measure_of.values(pandas.DataFrame(rows_of(plain, folder))).empty


def test_jobs_of_a_sweep_have_their_model_back(whole, tiny_folder, tmp_path, bench):
    run(tiny_job(tiny_folder, "method=dense", "quantize=int8"), tmp_path / "a", bench)
    again = run(tiny_job(tiny_folder, *OVERRIDES[:3], *OVERRIDES[-1:]), tmp_path / "b", bench)
    assert "the model" in again.reused and again.quantization == whole.record.quantization


def test_the_names_of_runs_differ_and_so_do_hashes(tiny_folder):
    names, hashes = set(), set()
    for overrides in ([], ["quantize=int8"], ["quantize=int4"], ["quantize=int4", "quantize.group_size=16"]):
        composition = compose(overrides)
        names.add(name_of(plain_values(composition.config), composition.choices))
        hashes.add(tiny_job(tiny_folder, *overrides).hash())
    assert len(names) == len(hashes) == 4 and sum("_int4_s0" in name for name in names) == 2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["quantize=int8", "evaluation=none"], "evaluation.datasets is empty"),
        (["quantize=int8", "offload=disk"], "offload=disk streams them"),
        (["quantize=int4", "quantize.group_size=0"], "quantize.group_size=0 is too small"),
        (["quantize.name=int3"], "quantize.name=int3 is unknown; choose one of none, int8, int4"),
        (["+quantize.group_size=4"], "quantize.group_size=4 has no effect with quantize=none"),
    ],
    ids=lambda own: "-".join(own) if isinstance(own, list) else "",
)
def test_what_cant_be_is_refused_before_the_model_is_opened(overrides, sentence, tiny_folder):
    with pytest.raises(ConfigError) as caught:
        tiny_job(tiny_folder, *overrides)
    (problem,) = caught.value.problems
    assert sentence in problem


def test_a_missing_package_is_named_with_the_command_that_installs_it(tiny_folder, monkeypatch):
    monkeypatch.setattr(quantizing, "library_version", lambda: None)
    with pytest.raises(ConfigError, match=r"quantize=int8 needs a package .* pip install 'torchao>=") as caught:
        tiny_job(tiny_folder, "quantize=int8")
    assert len(caught.value.problems) == 1
    tiny_job(tiny_folder)


def test_groups_that_do_not_fit_the_model_end_before_anything_is_measured(tiny_folder, tmp_path, bench):
    with pytest.raises(ModelError, match=r"quantize\.group_size=5 does not divide the 32 inputs"):
        run(tiny_job(tiny_folder, "quantize=int4", "quantize.group_size=5"), tmp_path, bench)
    assert not (tmp_path / "windows.parquet").exists()


def test_a_model_that_torchao_cant_run_ends_in_a_sentence(tiny_folder, tmp_path, monkeypatch, bench):
    def refused(*_):
        raise NotImplementedError("aten.einsum is not implemented")

    monkeypatch.setattr("statprune.runs.window_passes.pruned_losses_and_fidelity", refused)
    with pytest.raises(ModelError, match=r"can't be run with weights .*einsum.*give quantize=none"):
        run(tiny_job(tiny_folder, "quantize=int8"), tmp_path, bench)


def test_zeros_that_are_lost_and_values_that_are_not_finite_are_warned_of(
    tiny_folder, tmp_path, monkeypatch, caplog, bench
):
    losses = window_passes.pruned_losses
    monkeypatch.setattr("statprune.model.quantization._zeros", lambda *_: {"before": 3, "kept": 2, "after": 2})
    monkeypatch.setattr(
        "statprune.runs.window_passes.pruned_losses",
        lambda *own: {source: values * math.inf for source, values in losses(*own).items()},
    )
    record = run(tiny_job(tiny_folder, "method=dense", "quantize=int8", "evaluation.fidelity=false"), tmp_path, bench)
    assert record.quantization.dense.perplexity == {"bundled": None}
    assert "zeros of the dense model are no zeros" in caplog.text and "is not finite" in caplog.text
