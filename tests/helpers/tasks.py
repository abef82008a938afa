"""Write lm-eval tasks, and jobs that ask them; conftest.py of a package takes the fixtures that it needs."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from statprune.config.schema import RunConfig
from statprune.runs.pipeline import run
from statprune.runs.record import RunRecord
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer

ACCURACIES = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
WORDS = ["model", "mask", "score", "block", "weight", "row", "column", "sum", "mean", "one", "two", "three"]


def choices(task: str, folder: Path, documents: int, **changes: Any) -> None:
    """A multiple-choice task over a JSON file, both in ``folder``."""
    draw = numpy.random.default_rng(documents)
    rows = []
    for _ in range(documents):
        texts = [" ".join(draw.choice(WORDS, draw.integers(1, 5))) for _ in range(5)]
        rows.append({"question": texts[0], "choices": texts[1:], "label": int(draw.integers(4))})
    (folder / f"{task}.json").write_text("\n".join(json.dumps(row) for row in rows))
    task_yaml(task, folder, dataset_kwargs={"data_files": {"test": str(folder / f"{task}.json")}}, **changes)


def task_yaml(task: str, folder: Path, **changes: Any) -> None:
    """The YAML of a multiple-choice task; its documents are elsewhere."""
    config = {
        "task": task,
        "dataset_path": "json",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}} :",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": ACCURACIES,
        "metadata": {"version": 2.5},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(config | changes))


def evaluated(model: Path, tasks: Path, *overrides: str) -> RunConfig:
    """A job on a tiny model that asks it the tasks of a folder."""
    return tiny_job(
        model, "evaluation=full", f"evaluation.tasks=[{tasks}]", "method=magnitude", "sparsity.ratio=0.8", *overrides
    )


@pytest.fixture(scope="session")
def lively_folder(tmp_path_factory) -> Path:
    """The tiny model with blocks that weigh enough for pruning to change its answers."""
    folder, model = tmp_path_factory.mktemp("lively") / "model", tiny_llama()
    for parameter in model.model.layers.parameters():
        parameter.data.mul_(12 if parameter.ndim == 2 else 1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> Path:
    """A folder with a single task, and with a group of two, weighted by size, one with shots and one metric."""
    folder = tmp_path_factory.mktemp("tasks")
    choices("alone", folder, 23)
    choices("shown", folder, 9, num_fewshot=2, fewshot_split="test", metric_list=ACCURACIES[:1])
    choices("plain", folder, 30)
    group: dict[str, Any] = {"group": "pair", "task": ["shown", "plain"], "metadata": {"version": 1.0}}
    group["aggregate_metric_list"] = [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]
    (folder / "pair.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="session")
def measured(lively_folder, tasks, tmp_path_factory) -> tuple[RunRecord, Path]:
    """The record and folder of a run that measures perplexity and all tasks, and saves its model."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    return run(evaluated(lively_folder, tasks, "save_model=true"), folder), folder
