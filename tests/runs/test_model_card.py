"""The README.md of a saved model."""

import math
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from statprune.model.base_card import BaseCard, base_card
from statprune.model.coverage import Coverage, KindCoverage
from statprune.pruning.report import MatrixReport
from statprune.runs.model_card import CardSources, model_card
from statprune.runs.store import typed_command
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


def test_a_cell_with_a_bar_stays_one_cell():
    record = recorded("plain")
    config = record.config | {"model": record.config["model"] | {"path": "models/a|b"}}
    rows = model_card(replace(record, config=config)).splitlines()
    assert "| base model | `models/a\\|b` |" in rows
    perplexity = {"c|d": record.perplexity["bundled"]}
    assert "\n| c\\|d, " in model_card(replace(record, perplexity=perplexity))


def test_a_model_of_the_hub_is_named_as_the_base():
    record = recorded("plain")
    config = record.config | {"model": record.config["model"] | {"path": "somebody/model"}}
    header = yaml.safe_load(model_card(replace(record, config=config)).split("---")[1])
    assert header["base_model"] == "somebody/model" and "sparse" in header["tags"]


def test_a_local_model_is_no_base():
    assert "base_model" not in yaml.safe_load(model_card(recorded("plain")).split("---")[1])


def test_what_a_local_models_card_says_goes_on(tmp_path):
    text = "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\nbase_model: lab/first\ntags: [a]\n---\n# x\n"
    (tmp_path / "README.md").write_text(text)
    card = ModelCard(model_card(recorded("plain"), CardSources(base=base_card(str(tmp_path)))))
    values = card.data.to_dict()
    assert (values["base_model"], values["base_model_relation"]) == ("lab/first", "finetune")
    assert (values["license"], values["license_name"], values["license_link"]) == ("other", "own", "LICENSE")
    assert values["tags"] == ["statprune", "pruned", "sparse"] and "That of the base model: own" in card.text


@pytest.mark.parametrize("text", ["", "# no metadata\n", "---\n: [\n---\n", "---\n- a list\n---\n"])
def test_a_card_without_metadata_tells_nothing(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert base_card(str(tmp_path)) == BaseCard() == base_card("pkg://nowhere/file.gguf")
    assert "whose card was not at hand" in model_card(recorded("plain"))


def test_zeros_are_counted_by_kind_and_experts_together():
    kinds = {"mlp.0": KindCoverage(64, 64, 0), "experts.*.w1": KindCoverage(128, 96, 0), "gate": KindCoverage(0, 0, 16)}
    record = replace(recorded("plain"), coverage=Coverage(192, 160, 16, kinds))
    report = MatrixReport(0, "mlp.0", None, 8, 8, 64, 0.5, 9, False, 0.25, None, 0.0)
    experts = [replace(report, name=f"experts.{number}.w1", weights=48, sparsity=0.5) for number in range(2)]
    card = model_card(record, CardSources(reports=[report, *experts]))
    assert "| mlp.0 | 64 | 64 | 0.25000 |" in card and "| experts.*.w1 | 128 | 96 | 0.50000 |" in card
    assert "| gate | 16 | 0 |  |" in card


def test_a_card_has_the_command_and_says_how_to_check_and_what_zeros_are_not():
    card = model_card(recorded("plain"), CardSources("statprune method=wanda 'sparsity.ratio=0.5'"))
    assert "```sh\nstatprune method=wanda 'sparsity.ratio=0.5'\n```" in card
    assert "statprune verify RUN" in card and 'statprune inspect "this/folder"' in card and "statprune bench" in card
    assert "Zeros alone make no runtime faster" in card and "How it was made" not in model_card(recorded("plain"))


def test_the_command_is_read_from_the_runs_folder(tmp_path):
    assert typed_command(tmp_path) is None
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- method=wanda\n- evaluation.path=a b.txt\n")
    assert typed_command(tmp_path) == "statprune method=wanda 'evaluation.path=a b.txt'"


def test_a_card_names_the_run_that_saved_the_model_which_was_pruned():
    record = recorded("plain")
    config = record.config | {"model": record.config["model"] | {"path": "outputs/mine/tiny_0.5_wanda_none_s0/model"}}
    assert "# tiny_0.5_wanda_none_s0, pruned by statprune" in model_card(replace(record, config=config))
