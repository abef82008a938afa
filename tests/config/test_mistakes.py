"""Mistakes that people make with a first command: each is a sentence that says what to write instead."""

import pytest

from statprune.config.compose import compose, plain_values
from statprune.config.grids import preset_grid
from statprune.config.naming import name_of
from statprune.config.overrides import override_problems
from statprune.model.location import absent_folder
from tests.helpers.command import composed


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("evaluation.datasets=bundled,wikitext2", "write 'evaluation.datasets=[bundled,wikitext2]' for all of them"),
        ("evaluation.tasks=arc_easy,boolq", "write 'evaluation.tasks=[arc_easy,boolq]' for all of them"),
        ("method=wanda,cvr", "add -m to run them all"),
        ("model.exclude=[down_proj", "model.exclude=[down_proj lacks a ]; add it"),
        ("sparsity.layer_ratios={mlp:0.5", "lacks a }; add it"),
        ("method.alpha=(0.5", "lacks a ); add it"),
        ("evaluation.datasets=bundled]", "lacks a [; add it"),
        ("method=wnada", "(did you mean method=wanda?)"),
        ("sparsity=0.5", "(did you mean sparsity.ratio=0.5?)"),
        ("calibration=3", "calibration=3 is not a choice"),
        ("metod=wanda", "did you mean method?"),
        ("modle.path=x", "did you mean model.path?"),
        ("calibration.sampels=3", "did you mean calibration.samples?"),
        ("method.alfa=1", "method.alfa is not a key with method=cvr; did you mean method.alpha?"),
        ("hydra/launchr=joblib", "did you mean hydra/launcher?"),
    ],
)
def test_a_mistake_gets_advice(override, advice):
    (problem,) = override_problems([override])
    assert advice in problem


@pytest.mark.parametrize(
    "key", ["model.exclude", "evaluation.datasets", "evaluation.tasks", "tracking.tags", "plugins"]
)
def test_a_text_is_a_list_of_one(key):
    value = {"evaluation.datasets": "bundled", "evaluation.tasks": "bundled", "plugins": "math"}.get(key, "down_proj")
    assert composed(f"{key}={value}").resolved() == composed(f"{key}=[{value}]").resolved()
    composition = [compose([f"{key}={text}"]) for text in (value, f"[{value}]")]
    first, second = (name_of(plain_values(one.config), one.choices) for one in composition)
    assert first == second


@pytest.mark.parametrize("override", ["sparsity=0.5", "method=5", "calibration=true"])
def test_a_group_given_a_number_starts_no_grid(override):
    assert preset_grid([override]) is None  # and is refused by what is tested above


@pytest.mark.parametrize(
    ("path", "beginning"),
    [
        ("tiny_lama", "there is no folder tiny_lama here (did you mean tiny_llama?), and "),
        ("mistral", "there is no folder mistral here, and "),
        ("facebook/opt-125m", ""),
        ("tiny_llama", ""),
    ],
)
def test_a_path_without_a_slash_is_first_looked_for_here(path, beginning, tmp_path, monkeypatch):
    (tmp_path / "tiny_llama").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absent_folder(path) == beginning
