"""The numbers of our harness are those of lm-eval's own on the saved model; the real model is in test_end_to_end.py."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from statprune.runs.pipeline import run
from tests.helpers.lm_evals import Results, assert_equal_answers, assert_equal_metrics
from tests.helpers.models import tiny_tokenizer
from tests.helpers.tasks import choices, evaluated


def lm_evals(model: Path, tasks: Path, names: list[str]) -> Results:
    """What lm-eval measures by itself on a saved model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_MULTIPROC", "1")  # its bootstrap
        return simple_evaluate(
            "hf",
            model_args={"pretrained": str(model)},
            tasks=names,
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            batch_size=16,
            device="cpu",
            log_samples=True,
        )


@pytest.fixture(scope="module")
def theirs(measured, tasks) -> Results:
    """What lm-eval makes of the model that the measured run saved."""
    _, folder = measured
    return lm_evals(folder / "model", tasks, ["alone", "pair"])


def test_metrics_are_those_of_lm_eval(measured, theirs):
    assert_equal_metrics(measured[0], theirs)


def test_answers_to_documents_are_those_of_lm_eval(measured, theirs):
    assert set(theirs["samples"]) == {"alone", "shown", "plain"}
    assert_equal_answers(measured[1], theirs["samples"])


OTHER_KINDS: dict[str, dict[str, Any]] = {
    "guess": {"output_type": "loglikelihood", "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}]},
    "text": {"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "word_perplexity"}]},
    "write": {
        "output_type": "generate_until",
        "metric_list": [{"metric": "exact_match"}],
        "generation_kwargs": {"until": ["one"], "max_gen_toks": 8},
    },
}


@pytest.fixture(scope="module")
def other_kinds(lively_folder, tmp_path_factory):
    """The run of tasks with other kinds of requests, and the folder of the tasks.

    Perplexity of texts, words that have to be guessed (its error is bootstrapped) and generated ones.
    """
    folder = tmp_path_factory.mktemp("kinds")
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<s>"
    shutil.copytree(lively_folder, folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "tasks").mkdir()
    for name, kind in OTHER_KINDS.items():
        choices(name, folder / "tasks", 9, doc_to_choice=None, doc_to_target="{{' ' + choices[0]}}", **kind)
    config = evaluated(folder / "model", folder / "tasks", "save_model=true", "evaluation.datasets=[]")
    return run(config, folder / "run"), folder


def test_other_kinds_of_requests_have_lm_evals_numbers_too(other_kinds):
    record, folder = other_kinds
    assert_equal_metrics(record, lm_evals(folder / "run" / "model", folder / "tasks", [*OTHER_KINDS]))


def test_errors_without_a_formula_are_bootstrapped(other_kinds):
    assert other_kinds[0].zero_shot.tasks["guess"].pruned["perplexity_stderr"] > 0


def test_only_means_over_documents_are_averaged(other_kinds):
    assert other_kinds[0].zero_shot.averaged == ["guess", "write"]
