"""Sets of tasks: what they hold, and that their own metrics stand for their tasks."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from statprune.errors import DataError
from statprune.evaluation.task_sets import TASK_SETS, TaskSet, expanded, metric_problem, set_metrics
from statprune.runs.pipeline import run
from tests.helpers.tasks import evaluated

YAMLS = {
    "arc_challenge": "arc/arc_challenge",
    "arc_easy": "arc/arc_easy",
    "boolq": "super_glue/boolq/default",
    "hellaswag": "hellaswag/hellaswag",
    "openbookqa": "openbookqa/openbookqa",
    "piqa": "piqa/piqa",
    "rte": "glue/rte/default",
    "winogrande": "winogrande/default",
}


def described(task):
    """What lm-eval's YAML says of a task."""
    spec = find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "tasks" / f"{YAMLS[task]}.yaml"
    return load_yaml(path, resolve_func=False)


@pytest.mark.parametrize("name", TASK_SETS)
def test_lm_eval_has_every_task_of_a_set_with_its_metric(name):
    for task in TASK_SETS[name].tasks:
        config = described(task)
        assert config["task"] == task
        metrics = [item["metric"] for item in config["metric_list"]]
        assert TASK_SETS[name].metrics.get(task, "acc") in metrics


def test_a_set_that_says_metrics_says_those_of_all_its_tasks():
    assert all(not own.metrics or own.metrics.keys() == set(own.tasks) for own in TASK_SETS.values())


def test_denoise_rotators_mean_is_of_normalised_accuracies_but_for_winogrande():
    values = {"piqa": 80.96, "winogrande": 72.93, "hellaswag": 79.19, "arc_easy": 77.78, "arc_challenge": 52.73}
    assert round(sum(values.values()) / 5, 2) == 72.72  # Llama-3-8B in its Tables 12 and 2
    metrics = TASK_SETS["denoise_rotator5"].metrics
    assert values.keys() == metrics.keys()
    assert [task for task, metric in metrics.items() if metric == "acc"] == ["winogrande"]


def test_sets_are_replaced_by_their_tasks_in_order():
    assert expanded(["piqa", "permllm5"]) == ["piqa", *TASK_SETS["permllm5"].tasks]


def test_only_tasks_of_a_set_with_metrics_have_one():
    assert set_metrics(["wanda7", "bundled"]) == {} and len(set_metrics(["denoise_rotator5"])) == 5


@pytest.mark.parametrize("names", [["denoise_rotator5", "bundled"], ["wanda7"], []])
def test_a_metric_may_be_chosen_where_a_task_has_none_of_its_set(names):
    assert metric_problem(names, "acc_norm", "acc") is None


@pytest.fixture
def own_set(tasks, monkeypatch):
    """Puts a set of local tasks among the sets: give the metrics that it says."""

    def put(metrics):
        files = tuple(str(tasks / f"{name}.yaml") for name in ("alone", "plain"))
        monkeypatch.setitem(TASK_SETS, "mine", TaskSet(files, metrics))
        return "mine"

    return put


def test_the_metric_that_a_set_says_stands_for_its_task(own_set, lively_folder, tmp_path):
    zero_shot = run(evaluated(lively_folder, own_set({"alone": "acc_norm"})), tmp_path).zero_shot
    assert {name: task.metric for name, task in zero_shot.tasks.items()} == {"alone": "acc_norm", "plain": "acc"}
    values = [zero_shot.tasks["alone"].pruned["acc_norm"], zero_shot.tasks["plain"].pruned["acc"]]
    assert zero_shot.mean.pruned == pytest.approx(sum(values) / 2)


def test_a_metric_that_a_task_of_a_set_does_not_have_is_an_error_before_pruning(own_set, lively_folder, tmp_path):
    with pytest.raises(DataError, match=r"a set in evaluation.tasks takes f1 of alone, which lm-eval .* does not have"):
        run(evaluated(lively_folder, own_set({"alone": "f1"})), tmp_path)
