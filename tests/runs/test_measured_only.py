"""A run that measures what another has pruned: its sparsity is told, and nothing is called pruned or a target."""

from dataclasses import replace

import pytest
import torch

from statprune.runs.model_card import model_card
from statprune.runs.pipeline import run
from statprune.runs.summary import accuracy_line, print_summary
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.runs import recorded


@pytest.fixture(scope="module")
def measured_only(tmp_path_factory):
    """The record and the folder of a dense run on a model half of whose block weights are zeros."""
    folder = tmp_path_factory.mktemp("measured")
    model = tiny_llama()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() == 2:
                parameter[:, ::2] = 0
    model.save_pretrained(folder / "sparse")
    tiny_tokenizer().save_pretrained(folder / "sparse")
    return run(tiny_job(folder / "sparse", "method=dense", "save_model=true"), folder / "run"), folder / "run"


@pytest.fixture(scope="module")
def with_tasks():
    """The same with answers to tasks."""
    return replace(recorded("zero_shot"), calibration=None)


def shown(record, folder, capsys):
    print_summary(record, folder)
    return " ".join(capsys.readouterr().out.split())


def test_the_record_has_the_counted_sparsity(measured_only):
    record, _ = measured_only
    assert record.sparsity.achieved == 0.5 and not record.is_pruned


def test_the_summary_shows_the_counted_sparsity_and_one_perplexity(measured_only, capsys):
    record, folder = measured_only
    text = shown(record, folder, capsys)
    assert "sparsity (zeros counted) │ 0.50000 " in text and text.count("perplexity (bundled") == 1


@pytest.mark.parametrize("word", [" pruned ", "target", "perplexity dense", "left dense"])
def test_the_summary_calls_nothing_pruned_or_dense(word, measured_only, capsys):
    record, folder = measured_only
    text = shown(record, folder, capsys).replace("measured, not pruned", "")
    assert word not in text


def test_the_summary_has_one_accuracy_of_each_task(with_tasks, tmp_path, capsys):
    text = shown(with_tasks, tmp_path, capsys)
    assert "accuracy ┃" in text and "difference" not in text and "│ 0.2500 ± 0.1306 │" in text


def test_the_card_has_the_counted_sparsity_and_one_perplexity(measured_only):
    record, folder = measured_only
    card = (folder / "model" / "README.md").read_text()
    assert card == model_card(record)
    assert "| sparsity | 0.50000 over all block matrices, as the base model had it |" in card
    assert "| perplexity on | perplexity |" in card and "| dense |" not in card.replace("| method | dense |", "")


def test_the_card_has_one_accuracy_of_each_task(with_tasks):
    lines = [line for line in model_card(with_tasks).splitlines() if line.startswith(("| task", "| alone"))]
    assert [line.count("|") for line in lines] == [6, 6]


def test_a_line_of_a_sweep_has_one_accuracy(with_tasks):
    assert accuracy_line(with_tasks.zero_shot, is_pruned=False) == "zero-shot accuracy 0.2500"
