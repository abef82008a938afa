"""The real model through the command, and README's examples."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune.data.windows import evaluation_windows
from statprune.evaluation.perplexity import perplexity
from statprune.model.coverage import sparsity
from statprune.runs.store import read_record
from statprune.walk.discover import find_blocks
from tests.helpers.command import statprune
from tests.helpers.lm_evals import assert_equal_answers, assert_equal_metrics, lm_eval_command

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of a run of the bundled model with everything that a run can measure, and how the command ended."""
    folder = tmp_path_factory.mktemp("smoke")
    tasks = ("evaluation=full", "evaluation.tasks=bundled", "evaluation.limit=8")
    done = statprune("experiment=smoke", *tasks, "save_model=true", "tracking=offline", cwd=folder, fresh=True)
    assert done.returncode == 0, done.stderr
    return next((folder / "outputs" / "smoke").iterdir()), done


@pytest.fixture(scope="module")
def record(smoke):
    folder, _ = smoke
    return read_record(folder)


@pytest.fixture(scope="module")
def reloaded(smoke):
    """The saved model, and the windows that the run evaluated it on."""
    folder, _ = smoke
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    return AutoModelForCausalLM.from_pretrained(folder / "model"), evaluation_windows(tokenizer, "bundled", 64, 2).ids


def test_the_smoke_run_records_what_it_evaluated_on(record):
    values = record.perplexity["bundled"]
    assert values.windows == 2 and values.seq_len == 64 and values.tokens == 126


def test_the_smoke_runs_pruning_raises_the_perplexity(record):
    assert 1 < record.perplexity["bundled"].dense < record.perplexity["bundled"].pruned


def test_the_smoke_run_achieves_its_sparsity(record):
    assert record.sparsity.achieved == pytest.approx(0.5, abs=1e-6)


def test_the_smoke_run_prunes_every_prunable_matrix(record):
    assert record.coverage.pruned == record.coverage.prunable > 100_000_000


def test_the_smoke_run_records_its_configuration(record):
    assert record.config["sparsity"]["ratio"] == 0.5 and record.config["compensation"]["name"] == "energy"


def test_the_smoke_run_reports_every_matrix(smoke):
    folder, _ = smoke
    lines = [json.loads(line) for line in (folder / "blocks.jsonl").read_text().splitlines()]
    assert len(lines) == 30 * 7
    assert all(line["sparsity"] == 0.5 and 0 < line["relative_output_error"] < 2 for line in lines)


def test_the_smoke_runs_window_losses_give_its_perplexity(smoke, record):
    folder, _ = smoke
    losses = pd.read_parquet(folder / "windows.parquet")
    value = torch.tensor(losses.pruned_loss.to_numpy()).mean().exp().item()
    assert value == pytest.approx(record.perplexity["bundled"].pruned)


def test_the_smoke_run_is_tracked_offline(smoke):
    folder, _ = smoke
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))


def test_the_smoke_runs_peak_memory_is_predicted(smoke, record):
    _, done = smoke
    assert record.memory.peak_host_bytes / record.memory.predicted_host_bytes == pytest.approx(1, abs=0.3)
    assert "predicted peak memory" in done.stderr and record.memory.activations == "device"


def test_the_smoke_run_prints_plain_text(smoke):
    _, done = smoke
    assert "perplexity pruned" in done.stdout and "\x1b" not in done.stdout + done.stderr


def test_the_saved_model_has_the_recorded_perplexity(reloaded, record):
    assert perplexity(*reloaded) == pytest.approx(record.perplexity["bundled"].pruned, rel=1e-4)


def test_the_saved_model_has_the_recorded_zeros(reloaded, record):
    assert sparsity(find_blocks(*reloaded)) == record.sparsity.achieved


def test_the_saved_models_embeddings_are_tied(reloaded):
    model, _ = reloaded
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.long
def test_accuracies_of_the_bundled_task_are_those_of_lm_evals_command(smoke, record, tmp_path):
    folder, _ = smoke
    tasks = ROOT / "experiments" / "tasks"
    theirs = lm_eval_command(folder / "model", tasks, "bundled", tmp_path / "theirs", "--limit", "8")
    assert_equal_metrics(record, theirs)
    assert_equal_answers(folder, theirs["samples"])


def test_the_limit_of_documents_is_printed_and_recorded(smoke, record):
    _, done = smoke
    assert "only the first 8 documents of each task" in " ".join(done.stdout.split())
    task = record.zero_shot.tasks["bundled"]
    assert (task.limit, task.documents) == (8, 8)


def test_lm_eval_looks_for_no_commit(smoke):
    _, done = smoke
    assert "git" not in done.stderr


def test_the_bundled_model_knows_answers_of_the_bundled_task(record):
    assert record.zero_shot.tasks["bundled"].dense["acc"] > 0.4
