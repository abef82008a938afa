"""What is wrong with a configuration's values."""

import pytest

from statprune.config.checks import parse_config
from statprune.errors import ConfigError
from tests.helpers.command import composed


def test_a_value_of_the_wrong_type_is_a_problem_that_names_its_key():
    with pytest.raises(ConfigError, match=r"model\.dtype=float64 has the wrong type"):
        composed("model.dtype=float64")


def test_zero_shot_without_tasks_is_a_mistake():
    with pytest.raises(ConfigError, match=r"evaluation=full has no evaluation\.tasks"):
        composed("evaluation=full", "evaluation.tasks=[]")


def test_one_task_needs_no_list():
    assert composed("evaluation=full", "evaluation.tasks=bundled").evaluation.tasks == ["bundled"]


def test_all_problems_are_reported_together():
    raw = {
        "model": {"path": "x"},
        "method": {"name": "dense"},
        "compensation": {"name": "energy"},
        "sparsity": {"ratio": 1.5},
        "calibration": {"source": "text", "samples": 0},
        "seed": "many",
        "wrong": 1,
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    text = str(caught.value)
    for part in ("outside [0, 1)", "method=dense", "calibration.path", "samples=0", "seed=many", "wrong is not a key"):
        assert part in text


@pytest.mark.parametrize(
    "overrides,message",
    [
        (["sparsity.allocation=owl", "sparsity='2_4'"], "not for N:M"),
        (["sparsity.max_deviation=0.1"], "is for sparsity.allocation=owl"),
        (["sparsity.allocation=owl", "sparsity.max_deviation=0.7"], r"outside \[0, 0.5\)"),
        (["sparsity.layer_ratios=[0.5,1.5]"], r"has 1.5, which is no number in \[0, 1\)"),
        (["sparsity.layer_ratios=[0.5]", "sparsity.ratio=0.5"], "together with a list"),
        (["sparsity.layer_ratios=0.5"], "is neither a list"),
        (["sparsity.layer_ratios=[0.5]", "sparsity.allocation=owl"], "both decide the ratios"),
        (["sparsity.layer_ratios={mlp*+?:0.5}"], "no regular expression"),
    ],
)
def test_an_unfit_allocation_is_a_problem_of_the_configuration(overrides, message):
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda:99", "is not there"), ("mps", "is not supported"), ("gpu", "is unknown")],
)
def test_a_device_that_is_not_there_is_refused(name, message):
    with pytest.raises(ConfigError, match=f"device={name} {message}"):
        composed(f"device={name}")
