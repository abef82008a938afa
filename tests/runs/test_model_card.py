"""The README.md of a saved model."""

import math
from dataclasses import replace

import pytest
import yaml

from statprune.runs.model_card import model_card
from tests.helpers.runs import recorded


def test_a_card_has_the_accuracy_of_each_task(measured):
    card = (measured[1] / "model" / "README.md").read_text()
    assert "| alone, version 2.5 | acc | 0 | 23 |" in card


def test_a_card_has_the_mean_accuracy(measured):
    record, folder = measured
    row = f"| mean of alone, pair | | | | {record.zero_shot.mean.dense:.4f} ± "
    assert row in (folder / "model" / "README.md").read_text()


def test_a_card_tells_of_a_limit_of_documents(limited):
    assert "only the first 5 documents of each" in model_card(limited)


def test_a_card_says_where_nothing_but_accuracy_was_measured(limited):
    assert "Its perplexity was not measured." in model_card(limited)


@pytest.mark.parametrize("value", [None, math.inf])
def test_a_perplexity_that_is_not_finite_is_written_in_words(value):
    record = recorded("plain")
    perplexity = replace(record.perplexity["bundled"], pruned=value)
    assert "| 97.1810 | not finite |" in model_card(replace(record, perplexity={"bundled": perplexity}))


def test_metrics_that_are_not_finite_are_written_as_none():
    record = recorded("zero_shot")
    task = replace(
        record.zero_shot.tasks["alone"], metric="odd", documents=4, dense={"odd": None}, pruned={"odd": None}
    )
    card = model_card(replace(record, zero_shot=replace(record.zero_shot, tasks={"endless": task}, averaged=[])))
    assert "| endless, version 2.5 | odd | 0 | 4 | none | none |" in card


def test_a_card_names_what_stayed_dense_and_why():
    assert "| left dense | mlp.gate (384 weights, router) |" in model_card(recorded("mixture"))


def test_a_model_of_the_hub_is_named_as_the_base():
    record = recorded("plain")
    config = record.config | {"model": record.config["model"] | {"path": "somebody/model"}}
    header = yaml.safe_load(model_card(replace(record, config=config)).split("---")[1])
    assert header["base_model"] == "somebody/model" and "sparse" in header["tags"]


def test_a_local_model_is_no_base():
    assert "base_model" not in yaml.safe_load(model_card(recorded("plain")).split("---")[1])


def test_a_card_names_the_run_that_saved_the_model_which_was_pruned():
    record = recorded("plain")
    config = record.config | {"model": record.config["model"] | {"path": "outputs/mine/tiny_0.5_wanda_none_s0/model"}}
    assert "# tiny_0.5_wanda_none_s0, pruned by statprune" in model_card(replace(record, config=config))
