"""One run: what it records, and what it leaves where a step fails."""

import json

import pandas
import pytest
import torch

from statprune.errors import ModelError
from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from statprune.runs.summary import print_summary
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer


def saved_model(folder, change):
    """The tiny model with its weights changed, in a folder; returns that."""
    model = tiny_llama()
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_numbers_of_a_matrix_that_are_not_finite_are_null(tmp_path):
    folder = saved_model(tmp_path / "model", lambda model: model.model.layers[1].mlp.up_proj.weight.zero_())
    run(tiny_job(folder), tmp_path)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "blocks.jsonl").open()]
    zero = next(line for line in lines if line["block"] == 1 and line["layer"] == "mlp.up_proj")
    assert zero["relative_output_error"] is None and zero["column_energy_ratio"] is None and zero["sparsity"] == 1


def test_weights_that_are_not_finite_name_their_block(tmp_path):
    def change(model):
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan

    with pytest.raises(ModelError, match="block 1 of LlamaForCausalLM gives values that are not finite"):
        run(tiny_job(saved_model(tmp_path / "model", change)), tmp_path)


@pytest.fixture(scope="module")
def dense(tmp_path_factory, tiny_folder):
    """The record and folder of a run that prunes nothing, and saves the model."""
    folder = tmp_path_factory.mktemp("dense")
    return run(tiny_job(tiny_folder, "method=dense", "sparsity.allocation=owl", "save_model=true"), folder), folder


def test_a_dense_run_prunes_nothing(dense):
    record, _ = dense
    assert (record.sparsity.target, record.sparsity.achieved, record.coverage.pruned) == (None, 0, 0)


def test_a_dense_run_measures_the_model_once(dense):
    perplexity = dense[0].perplexity["bundled"]
    assert perplexity.dense == perplexity.pruned


def test_a_dense_runs_summary_is_printed(dense, capsys):
    print_summary(*dense)
    assert "perplexity (bundled" in capsys.readouterr().out


def test_a_dense_runs_card_says_that_nothing_was_pruned(dense):
    assert "measured, not pruned" in (dense[1] / "model" / "README.md").read_text()


def test_dense_losses_stay_when_a_later_step_fails(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr("statprune.runs.pipeline.prune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tiny_job(tiny_folder), tmp_path)
    losses = pandas.read_parquet(tmp_path / "windows.parquet")
    assert losses.dense_loss.notna().all() and losses.pruned_loss.isna().all() and (losses.tokens == 31).all()


@pytest.fixture
def full_disk(tmp_path, tiny_folder, monkeypatch):
    """The error of a run whose model does not fit the disk; the run is in ``tmp_path``."""

    def full(loaded, folder):
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").touch()
        raise OSError("no space left on device")

    monkeypatch.setattr("statprune.runs.pipeline.save_model", full)
    with pytest.raises(ModelError) as caught:
        run(tiny_job(tiny_folder, "save_model=true"), tmp_path)
    return caught


def test_a_model_that_cant_be_saved_is_an_error_that_points_to_the_measurements(full_disk):
    assert full_disk.match(r"could not be saved .*no space left on device.* are in result\.json")


@pytest.mark.usefixtures("full_disk")
def test_a_model_that_cant_be_saved_leaves_no_half_of_it(tmp_path):
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("full_disk")
def test_a_model_that_cant_be_saved_is_still_measured_and_recorded(tmp_path):
    record = read_record(tmp_path)
    assert record.sparsity.achieved == 0.5 and record.perplexity["bundled"].pruned > 1


@pytest.fixture(scope="module")
def explicit(tmp_path_factory, tiny_folder):
    """The record of a run with a ratio for each block."""
    return run(tiny_job(tiny_folder, "sparsity.layer_ratios=[0.25,0.5,0.625]"), tmp_path_factory.mktemp("explicit"))


@pytest.fixture(scope="module")
def owl(tmp_path_factory, tiny_folder):
    """The record of a run whose ratios OWL chose."""
    config = tiny_job(tiny_folder, "sparsity.allocation=owl", "sparsity.ratio=0.6")
    return run(config, tmp_path_factory.mktemp("owl"))


def test_explicit_ratios_are_reached_block_by_block(explicit):
    assert explicit.sparsity.blocks == pytest.approx([0.25, 0.5, 0.625], abs=1e-3)


def test_the_target_of_explicit_ratios_is_their_mean(explicit):
    assert explicit.sparsity.target == pytest.approx((0.25 + 0.5 + 0.625) / 3)


def test_owl_reaches_the_ratio_over_all_blocks(owl):
    assert owl.sparsity.target == pytest.approx(0.6, abs=1e-4) == owl.sparsity.achieved


def test_owl_spreads_the_ratio_as_far_as_it_may(owl):
    assert max(owl.sparsity.blocks) - min(owl.sparsity.blocks) == pytest.approx(0.16, abs=1e-3)


def test_owls_seconds_and_options_are_in_the_record(owl):
    assert owl.seconds["allocate"] > 0
    assert owl.config["sparsity"]["max_deviation"] == 0.08


def test_other_ratios_have_another_hash(owl, explicit):
    assert owl.config_hash != explicit.config_hash
