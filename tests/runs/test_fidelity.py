"""Fidelity of a run's pruned model to the dense one, however the run came to it."""

import logging
from dataclasses import replace

import pandas
import pytest
import torch

from statprune.evaluation.fidelity import WindowFidelity
from statprune.runs import measure, window_passes
from statprune.runs.finals import fidelity_results, finals
from statprune.runs.job import Outcome, _told
from statprune.runs.ledger import JobState
from statprune.runs.model_card import model_card
from statprune.runs.pipeline import run
from statprune.runs.store import read_record
from statprune.runs.summary import print_summary
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job


@pytest.fixture(scope="module")
def plain(tiny_folder, tmp_path_factory):
    """A run's record and folder."""
    folder = tmp_path_factory.mktemp("plain")
    return run(tiny_job(tiny_folder, "method=wanda"), folder), folder


@pytest.mark.parametrize(
    "overrides",
    [
        ["offload=disk", "activations=disk"],
        ["activations=disk"],
    ],
    ids="-".join,
)
def test_fidelity_is_the_same_wherever_blocks_and_states_wait(overrides, plain, tiny_folder, tmp_path, monkeypatch):
    plans, losses = [], measure.dense_losses
    monkeypatch.setattr(measure, "dense_losses", lambda *own: plans.append(own[1].memory) or losses(*own))
    record = run(tiny_job(tiny_folder, "method=wanda", *overrides), tmp_path)
    assert record.fidelity == plain[0].fidelity and record.perplexity == plain[0].perplexity
    columns = ["divergence", "agreement"]
    own, other = (pandas.read_parquet(folder / "windows.parquet")[columns] for folder in (tmp_path, plain[1]))
    assert own.equals(other)
    assert not list(tmp_path.rglob("*.hidden"))
    assert (record.memory.dense_states, plain[0].memory.dense_states) == ("disk", "device")
    states = len(own) * 32 * 32 * 4  # windows, tokens, features, bytes
    assert plans[0].kept_bytes == states and plans[0].written >= states


def test_a_run_whose_dense_losses_are_cached_runs_the_dense_model_for_its_states(plain, tiny_folder, tmp_path):
    config = tiny_job(tiny_folder, "method=wanda", f"cache={tmp_path / 'cache'}")
    records = [run(config, tmp_path / name) for name in "ab"]
    assert [record.reused for record in records] == [[], ["the dense perplexity"]]
    assert records[0].fidelity == records[1].fidelity == plain[0].fidelity


def test_jobs_of_a_sweep_share_the_states(plain, tiny_folder, tmp_path, monkeypatch):
    bench, made = Workbench(holds_model=True), []
    states = window_passes.dense_states
    monkeypatch.setattr(measure, "dense_states", lambda *own: made.append(1) or states(*own))
    run(tiny_job(tiny_folder, "method=magnitude"), tmp_path / "a", bench)
    second = run(tiny_job(tiny_folder, "method=wanda"), tmp_path / "b", bench)
    assert second.fidelity == plain[0].fidelity and not made
    run(tiny_job(tiny_folder, "method=wanda", "evaluation.max_windows=2"), tmp_path / "c", bench)
    again = run(tiny_job(tiny_folder, "method=wanda", "sparsity.ratio=0.6"), tmp_path / "d", bench)
    assert made == [1]  # one set at a time is held: the losses were, and the states were not
    assert again.fidelity["bundled"].windows == second.fidelity["bundled"].windows


def test_states_that_leave_too_little_room_are_not_held(tiny_folder, tmp_path, monkeypatch):
    bench = Workbench(holds_model=True)
    monkeypatch.setattr("statprune.runs.workbench._has_room", lambda *_: False)
    monkeypatch.setattr(bench, "about_to_prune", lambda _: None)
    run(tiny_job(tiny_folder, "method=magnitude"), tmp_path, bench)
    assert bench._held.states is None


@pytest.mark.parametrize("overrides", [["evaluation.fidelity=false"], ["method=dense"]], ids="-".join)
def test_a_run_without_fidelity_keeps_nothing_for_it(overrides, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(window_passes, "keeping_last_states", None)
    record = run(tiny_job(tiny_folder, *overrides), tmp_path)
    assert record.fidelity is None and record.memory.dense_states is None
    assert "divergence" not in pandas.read_parquet(tmp_path / "windows.parquet")


def test_fidelity_is_no_part_of_the_hash(tiny_folder):
    assert tiny_job(tiny_folder).hash() == tiny_job(tiny_folder, "evaluation.fidelity=false").hash()


def test_predictions_that_cant_be_made_again_are_no_fidelity(tiny_folder, tmp_path, monkeypatch, caplog):
    other = property(lambda meter: torch.zeros(len(meter._losses), dtype=torch.float64))
    monkeypatch.setattr(window_passes.FidelityMeter, "dense_losses", other)
    record = run(tiny_job(tiny_folder), tmp_path)
    assert record.fidelity == {} and "can't be made again" in caplog.text
    assert pandas.read_parquet(tmp_path / "windows.parquet").divergence.isna().all()


def test_predictions_that_are_not_finite_are_null_and_warned_of(tiny_folder, tmp_path, monkeypatch, caplog):
    losses = window_passes.pruned_losses_and_fidelity

    def overflown(context, prepared, *own):
        with torch.no_grad():
            prepared.blocks[-1].matrices[0].parameter.fill_(torch.inf)
        return losses(context, prepared, *own)

    monkeypatch.setattr(window_passes, "pruned_losses_and_fidelity", overflown)
    with caplog.at_level(logging.WARNING):
        run(tiny_job(tiny_folder), tmp_path)
    own = read_record(tmp_path).fidelity["bundled"]
    assert own.divergence is None and own.agreement is None and own.windows > 0
    assert "is not finite" in caplog.text


def test_means_are_over_windows():
    own = WindowFidelity(torch.tensor([1.0, 3.0]).double(), torch.tensor([0.5, 1.0]).double())
    result = fidelity_results({"a": own})["a"]
    assert (result.divergence, result.agreement, result.windows) == (2.0, 0.75, 2)


def test_wandb_gets_divergence_and_agreement(plain):
    own, told = plain[0].fidelity["bundled"], finals(plain[0])
    assert told["divergence/bundled"] == own.divergence and told["agreement/bundled"] == own.agreement


def test_people_read_divergence_and_agreement(plain, capsys):
    record, folder = plain
    own = record.fidelity["bundled"]
    print_summary(record, folder)
    shown = [f"{own.divergence:.4f}", f"{100 * own.agreement:.2f}%"]
    for text in (capsys.readouterr().out, model_card(record), Outcome(folder, JobState.FINISHED, record=record).line):
        assert all(number in text for number in shown) and "KL" in text


def test_a_skipped_run_that_has_no_fidelity_says_so(plain, tiny_folder, tmp_path):
    config = tiny_job(tiny_folder, "method=wanda")
    assert "made without fidelity" in _told(config, tmp_path, replace(plain[0], fidelity=None))
    assert _told(config, tmp_path, plain[0]) == ""
