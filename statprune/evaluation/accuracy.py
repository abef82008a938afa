"""Zero-shot accuracy as numbers: answers of one model, two models side by side, and standard errors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

Metrics = dict[str, float | None]  # by name; None where a number is not finite


@dataclass(frozen=True)
class DocumentAnswer:
    """The answer to one document of a task, by one metric.

    Attributes:
        task: its name.
        document: number of the document.
        document_hash: lm-eval's hash of the document.
        metric: its name.
        value: of the metric; None where it is not finite.
    """

    task: str
    document: int
    document_hash: str
    metric: str
    value: float | None


@dataclass(frozen=True)
class Answers:
    """What was measured of one model.

    Attributes:
        metrics: by task or group; metrics and their standard errors.
        documents: the answers to all documents.
        truncated_requests: requests that were longer than the model's context and lost their beginning.
    """

    metrics: dict[str, Metrics]
    documents: list[DocumentAnswer]
    truncated_requests: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [
            [answer.task, answer.document, answer.document_hash, answer.metric, answer.value]
            for answer in self.documents
        ]
        return {"metrics": self.metrics, "documents": rows, "truncated_requests": self.truncated_requests}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Answers":
        """Read plain values.

        Raises:
            ValueError, TypeError or KeyError: they are damaged.
        """
        if not values["metrics"]:
            raise ValueError("no metrics")
        answers = [DocumentAnswer(*row) for row in values["documents"]]
        return cls(values["metrics"], answers, values["truncated_requests"])


@dataclass(frozen=True)
class TaskPlan:
    """A task or group as it is evaluated.

    Attributes:
        metric: the one that stands for the task.
        shots: how many each prompt has [examples].
        version: lm-eval's version of the task.
        documents: how many are asked [documents].
        documents_in_all: how many the task has [documents].
        limit: how many were wanted at most; None: all [documents].
    """

    metric: str
    shots: int | None
    version: int | float | str | None
    documents: int
    documents_in_all: int
    limit: int | None


@dataclass(frozen=True)
class TaskResult(TaskPlan):
    """A task or group as it was measured.

    Attributes:
        dense: the dense model's metrics and their standard errors.
        pruned: those of the model that the run ends with; None while it is not measured.
        difference: pruned minus dense, of the metric that stands for the task.
        difference_stderr: its standard error over the same documents.
        flips: share of the documents whose answer changed between right and wrong, either way; None where answers are
            not right or wrong, while the pruned model is not measured, and in records of older versions [fraction].
    """

    dense: Metrics
    pruned: Metrics | None
    difference: float | None
    difference_stderr: float | None
    flips: float | None = None


@dataclass(frozen=True)
class MeanAccuracy:
    """The mean over tasks with standard errors of independent tasks; None where a task's number is not finite.

    Attributes:
        dense: accuracy of the dense model [fraction].
        dense_stderr: its standard error [fraction].
        pruned: accuracy of the model that the run ends with [fraction].
        pruned_stderr: its standard error [fraction].
        difference: pruned minus dense [fraction].
        difference_stderr: its standard error, over the same documents [fraction].
        flips: share of answers that changed between right and wrong, either way [fraction].
    """

    dense: float | None
    dense_stderr: float | None
    pruned: float | None
    pruned_stderr: float | None
    difference: float | None
    difference_stderr: float | None
    flips: float | None = None


@dataclass(frozen=True)
class ZeroShotProtocol:
    """Everything besides the tasks that changes a number.

    Attributes:
        lm_eval: the harness's version.
        batch_size: how many go through the model together [requests].
        limit: how many of each task, at most; None: all [documents].
        num_fewshot: how many each prompt has; None: as each task defines [examples].
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.
        chat_template: whether prompts are messages of a chat.
        dtype: precision of the model.
        seeds: the harness's, by what they are for.
        bootstrap_iters: how many are drawn for standard errors without a formula [samples].
        requests_with_bos: requests whose tokens begin with the tokenizer's BOS token, before any is cut off; None where
            a record of an older version does not tell [requests].
        max_length: longest context [tokens].
        requests: how many questions are asked [requests].
        requests_sha256: hash of all documents, prompts and expected answers.
        truncated_requests: how many lost their beginning, since they were longer than that [requests].
    """

    lm_eval: str
    batch_size: int
    limit: int | None
    num_fewshot: int | None
    add_bos_token: bool | None
    chat_template: bool
    dtype: str
    seeds: dict[str, int]
    bootstrap_iters: int
    requests_with_bos: int | None
    max_length: int
    requests: int
    requests_sha256: str
    truncated_requests: int = 0


@dataclass(frozen=True)
class ZeroShotResult:
    """The zero-shot part of a record.

    Attributes:
        tasks: by task or group.
        mean: over the averaged tasks.
        protocol: everything else that changes a number.
        averaged: names of the tasks and groups that the mean is over.
    """

    tasks: dict[str, TaskResult]
    mean: MeanAccuracy
    protocol: ZeroShotProtocol
    averaged: list[str]

    @property
    def dense_metrics(self) -> dict[str, Metrics]:
        """The dense model's metrics by task."""
        return {name: task.dense for name, task in self.tasks.items()}


def stderr_of(metric: str) -> str:
    """Name of the metric's standard error, as lm-eval forms it: acc_stderr, and exact_match_stderr,filter."""
    name, comma, chosen_filter = metric.partition(",")
    return f"{name}_stderr{comma}{chosen_filter}"


def mean_accuracy(tasks: Sequence[TaskResult]) -> MeanAccuracy:
    """Mean over tasks, dense, pruned and their difference."""
    columns: dict[str, list[float | None]] = {
        "dense": [task.dense.get(task.metric) for task in tasks],
        "dense_stderr": [task.dense.get(stderr_of(task.metric)) for task in tasks],
        "pruned": [(task.pruned or {}).get(task.metric) for task in tasks],
        "pruned_stderr": [(task.pruned or {}).get(stderr_of(task.metric)) for task in tasks],
        "difference": [task.difference for task in tasks],
        "difference_stderr": [task.difference_stderr for task in tasks],
        "flips": [task.flips for task in tasks],
    }
    means = {}
    for item in fields(MeanAccuracy):
        values = columns[item.name]
        if item.name.endswith("_stderr"):
            means[item.name] = combined_stderr(values, [1 / len(values)] * len(values) if values else [])
        else:
            finite = [value for value in values if value is not None]
            means[item.name] = sum(finite) / len(finite) if finite and len(finite) == len(values) else None
    return MeanAccuracy(**means)


def paired_stderr(task: str, metric: str, dense: Answers, pruned: Answers) -> float | None:
    """Standard error of the mean difference over a task's documents; None where documents have no such number."""
    before, after = (_by_document(task, metric, answers) for answers in (dense, pruned))
    differences = []
    for document, value in before.items():
        other = after[document]
        if value is None or other is None:
            return None
        differences.append(other - value)
    if len(differences) < 2:
        return None
    spread = torch.tensor(differences, dtype=torch.float64, device="cpu").std(correction=1)
    return float(spread) / math.sqrt(len(differences))


def _by_document(task: str, metric: str, answers: Answers) -> dict[int, float | None]:
    """A task's values by the document's number."""
    return {own.document: own.value for own in answers.documents if (own.task, own.metric) == (task, metric)}


def flipped_share(task: str, metric: str, dense: Answers, pruned: Answers) -> float | None:
    """Flips (arXiv 2407.09141): share of a task's documents whose answer changed between right and wrong, either way.

    None where an answer is neither (0 or 1), or there are none.
    """
    before, after = (_by_document(task, metric, answers) for answers in (dense, pruned))
    if not before or not {*before.values(), *after.values()} <= {0, 1}:
        return None
    return sum(value != after[document] for document, value in before.items()) / len(before)


def combined_stderr(errors: Iterable[float | None], weights: Iterable[float]) -> float | None:
    """Standard error of a weighted sum of independent numbers; None where one is unfinite."""
    pairs = list(zip(errors, weights, strict=True))
    if not pairs or any(error is None for error, _ in pairs):
        return None
    return math.sqrt(sum((weight * (error or 0.0)) ** 2 for error, weight in pairs))


def finite_or_none(value: object) -> float | None:
    """The number as a float; None where it is no number, or not finite."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
