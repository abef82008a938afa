"""Models of one table may have protocols of their own where its layout sets them; otherwise all cells share one."""

import json

import pandas
import pytest

from statprune.analysis.tables import build
from statprune.config.table_spec import load_table
from statprune.errors import StatpruneError

MODELS = {"Llama-2-7B": "llama2", "Llama-3-8B": "llama3"}


def rows(table, **by_model):
    """A made-up row of ``collect`` for each cell; what differs between models is given by model."""
    made = []
    for number, cell in enumerate(table.cells):
        row = {
            "folder": str(number),
            "config_hash": str(number),
            "model.path": MODELS[cell.place[2]],
            "seed": cell.seed,
        }
        row |= {"device": "cpu", "calibration.source": "c4", "pruned": 0.5, "n": 9}
        row |= {"date": "2026-11-28T00:00:00+00:00", "commit": "75b65ac", "threads": 1}
        made.append(row | by_model[MODELS[cell.place[2]]])
    return {cell: str(number) for number, cell in enumerate(table.cells)}, pandas.DataFrame(made)


def perplexities(overrides=None):
    """Wanda's cells at 50% with evaluation windows of 4096 and 2048 tokens."""
    table = load_table("ppl", "paper", list(MODELS), overrides).only(["Wanda"], ["50%"], [0])
    lengths = {"llama2": 4096, "llama3": 2048}
    measured = {
        name: {"metric": "perplexity", "on": "wikitext2", "protocol": {"seq_len": n}} for name, n in lengths.items()
    }
    return build(table, *rows(table, **measured))


def accuracies(**metrics):
    """Wanda's cells at 50%: the means of tasks, by these metrics."""
    table = load_table("zero_shot", "paper", list(MODELS)).only(["Wanda"], ["50%"])
    sets = {"llama2": ["wanda7"], "llama3": ["denoise_rotator5"]}
    measured = {
        name: {
            "metric": "accuracy",
            "on": "mean",
            "evaluation.tasks": tasks,
            "protocol": {"limit": None, "tasks": json.dumps(tasks), "metrics": json.dumps(metrics[name])},
        }
        for name, tasks in sets.items()
    }
    return build(table, *rows(table, **measured))


def test_models_have_the_sequence_length_that_the_layout_sets_for_them():
    built = perplexities()
    assert len(built.entries) == 2
    assert "windows of 4096 (Llama-2-7B) or 2048 (Llama-3-8B) tokens" in built.runs


def test_another_length_than_the_one_that_the_layout_sets_for_all_is_refused():
    with pytest.raises(StatpruneError, match="different seq_len"):
        perplexities(["evaluation.seq_len=2048"])


def test_models_have_the_tasks_that_the_layout_sets_for_them():
    built = accuracies(llama2={"a": "acc"}, llama3={"b": "acc_norm"})
    assert built.entries["50%", "Wanda", "Llama-3-8B"].mean == 50
    assert "over wanda7 (Llama-2-7B) or denoise_rotator5 (Llama-3-8B)" in built.runs


def test_means_of_one_model_by_different_metrics_are_refused():
    table = load_table("zero_shot", "paper", ["Llama-2-7B"]).only(["Wanda"], ["50%", "2:4"])
    row = {"metric": "accuracy", "on": "mean", "evaluation.tasks": ["wanda7"]}
    hashes, frame = rows(table, llama2=row)
    frame["protocol"] = [{"metrics": "acc"}, {"metrics": "acc_norm"}]
    with pytest.raises(StatpruneError, match="different metrics"):
        build(table, hashes, frame)
