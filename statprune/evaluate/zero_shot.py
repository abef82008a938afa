"""Zero-shot accuracy: lm-eval's own harness on the model in memory, rehearsed first, compared document by document."""

import hashlib
import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lm_eval import simple_evaluate
from lm_eval.api.metrics import mean as mean_of_documents

from statprune.config.schema import EvaluationConfig
from statprune.errors import DataError, ModelError, first_line
from statprune.evaluate.harness import Harness, Rehearsal, quiet
from statprune.evaluate.tasks import TaskSuite, is_group
from statprune.runs.record import stderr_of
from statprune.system.console import progress
from statprune.system.distributed import gathered, size
from statprune.system.files import replacing

log = logging.getLogger(__name__)
DOCUMENTS = "documents.parquet"
# lm-eval's defaults, which its command line has, too
SEEDS = {"random_seed": 0, "numpy_random_seed": 1234, "torch_random_seed": 1234, "fewshot_random_seed": 1234}

BOOTSTRAPS = 100_000  # samples for standard errors that have no formula, lm-eval's default, too

# What was measured of one model, as plain values:
# metrics: {task or group: {metric: value, metric_stderr: value}};
# documents: rows [task, document, its hash, metric, value]; truncated_requests: how many lost their beginning.
Scores = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a rehearsal tells of the evaluation to come.

    Attributes:
        tasks: by task or group: metric that stands for it, shots, version, documents, the task's documents in all.
        averaged: names whose metrics make the mean accuracy.
        protocol: everything else that changes a number.
        requests: of this process.
        longest: tokens of the longest request.
    """

    tasks: dict[str, dict[str, Any]]
    averaged: list[str]
    protocol: dict[str, Any]
    requests: int
    longest: int


class ZeroShot:
    """An evaluation that is ready to run.

    Args:
        suite: the tasks, loaded.
        model: a causal language model.
        tokenizer: its own.
        options: shots, limit, batch size, BOS, chat template, metric.

    Raises:
        ModelError: a chat template is asked for, and the tokenizer has none.
        DataError: a task fails in the rehearsal.
    """

    def __init__(self, suite: TaskSuite, model: Any, tokenizer: Any, options: EvaluationConfig):
        self._suite, self._tokenizer, self._options = suite, tokenizer, options
        if options.chat_template and not tokenizer.chat_template:
            raise ModelError(
                "evaluation.chat_template=true, but the model's tokenizer has no chat template; "
                "set evaluation.chat_template=false"
            )
        writes = sorted(task.task_name for task in suite.tasks if task.OUTPUT_TYPE == "generate_until")
        if writes and tokenizer.eos_token is None:
            raise ModelError(
                f"the tasks {', '.join(writes)} let the model write, and its tokenizer has no end-of-sequence token; "
                "leave them out of evaluation.tasks, or give the tokenizer one"
            )
        rehearsal = Rehearsal(model, tokenizer, options.task_batch_size, options.add_bos_token)
        try:
            results = self._evaluate(rehearsal, bootstrap_iters=0)
        except Exception as error:  # a template that does not fit a document, a metric that lacks a package
            log.debug("the rehearsal failed", exc_info=True)
            raise DataError(
                f"{self._culprit(model)} can't be run ({type(error).__name__}: {first_line(error)}); "
                "mend the task, or leave it out of evaluation.tasks"
            ) from error
        self.plan = self._planned(rehearsal, results, str(model.dtype).removeprefix("torch."))

    def measure(self, model: Any, name: str) -> Scores:
        """Ask the model.

        Args:
            model: the one it was made with, or the same pruned.
            name: shown beside the progress.

        Raises:
            DataError: lm-eval fails.
        """
        with progress(f"{name} zero-shot requests", self.plan.requests) as advance:
            harness = Harness(
                model, self._tokenizer, self._options.task_batch_size, self._options.add_bos_token, advance
            )
            try:
                results = self._evaluate(harness)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                log.debug("the evaluation failed", exc_info=True)
                raise DataError(
                    f"the zero-shot evaluation of the {name} model failed ({type(error).__name__}: "
                    f"{first_line(error)}); mend the task, or leave it out of evaluation.tasks"
                ) from error
        return _scores(results) | {"truncated_requests": sum(gathered(harness.truncated))}

    def compared(self, dense: Scores, pruned: Scores | None) -> dict[str, Any]:
        """The part of a record that tells of zero-shot accuracy; ``pruned`` None while unknown."""
        tasks = {}
        for name, entry in self.plan.tasks.items():
            sides = {"dense": dense["metrics"][name], "pruned": pruned["metrics"][name] if pruned else None}
            tasks[name] = entry | sides | self._difference(name, entry["metric"], dense, pruned)
        protocol = self.plan.protocol | {"truncated_requests": (pruned or dense)["truncated_requests"]}
        return {"tasks": tasks, "mean": _mean([tasks[name] for name in self.plan.averaged]), "protocol": protocol} | {
            "averaged": self.plan.averaged
        }

    def _culprit(self, model: Any) -> str:
        """The task that fails when it is rehearsed alone."""
        options = self._options
        for item in self._suite.items:
            rehearsal = Rehearsal(model, self._tokenizer, options.task_batch_size, options.add_bos_token)
            try:
                self._evaluate(rehearsal, bootstrap_iters=0, items=[item])
            except Exception:
                return f"the task {_name(item)}"
        return "the zero-shot tasks"

    def _evaluate(self, harness: Harness, bootstrap_iters: int = BOOTSTRAPS, items: list[Any] | None = None) -> Any:
        options = self._options
        with quiet():
            results = simple_evaluate(
                model=harness,
                tasks=self._suite.items if items is None else items,
                num_fewshot=options.num_fewshot,
                limit=options.limit,
                batch_size=harness.batch_size,
                apply_chat_template=options.chat_template,
                fewshot_as_multiturn=options.chat_template,
                task_manager=self._suite.manager,
                bootstrap_iters=bootstrap_iters,
                **SEEDS,
            )
        return gathered(results)[0] if size() > 1 else results

    def _planned(self, rehearsal: Rehearsal, results: Any, dtype: str) -> Plan:
        tasks, options = {}, self._options
        for item in _all_items(self._suite.items):
            name = _name(item)
            metrics = _metrics(results["results"].get(name, {}))
            labels = [label for label in metrics if not label.partition(",")[0].endswith("_stderr")]
            if not labels:  # a group without a number of its own
                continue
            leaves = item.get_all_tasks() if is_group(item) else [item]
            counts = [results["n-samples"][leaf.task_name] for leaf in leaves]
            tasks[name] = {
                "metric": _standing(labels, options.metric),
                "shots": results["n-shot"].get(name),
                "version": results["versions"].get(name),
                "documents": sum(count["effective"] for count in counts),
                "documents_in_all": sum(count["original"] for count in counts),
                "limit": options.limit,
            }
        harness_protocol = {
            "begins_with_bos": rehearsal.tok_encode("A")[:1] == [self._tokenizer.bos_token_id],
            "max_length": rehearsal.max_length,
            "requests": _requests(results),
            "requests_sha256": _fingerprint(results),
        }
        protocol = {
            "lm_eval": version("lm_eval"),
            "batch_size": options.task_batch_size,
            "limit": options.limit,
            "num_fewshot": options.num_fewshot,
            "add_bos_token": options.add_bos_token,
            "chat_template": options.chat_template,
            "dtype": dtype,
            "seeds": SEEDS,
            "bootstrap_iters": BOOTSTRAPS,
        }
        averaged = [name for item in self._suite.items for name in _averaged(item, tasks)]
        return Plan(tasks, averaged, protocol | harness_protocol, len(rehearsal.requests), rehearsal.longest())

    def _difference(self, name: str, metric: str, dense: Scores, pruned: Scores | None) -> dict[str, Any]:
        """Pruned minus dense, and its standard error over the same documents."""
        if pruned is None:
            return {"difference": None, "difference_stderr": None}
        before, after = dense["metrics"][name][metric], pruned["metrics"][name][metric]
        if before is None or after is None:
            return {"difference": None, "difference_stderr": None}
        item = next(item for item in _all_items(self._suite.items) if _name(item) == name)
        shares = _shares(item, metric, self.plan.tasks)
        errors = [_paired_stderr(task, metric, dense, pruned) for task in shares]
        return {"difference": after - before, "difference_stderr": _combined(errors, shares.values())}


def dense_scores(zero_shot: dict[str, Any], folder: Path) -> Scores:
    """What a record and its folder still tell of the dense model, as ``ZeroShot.measure`` gave it."""
    rows = pd.read_parquet(folder / DOCUMENTS)[["task", "document", "document_hash", "metric", "dense"]]
    return {
        "metrics": {name: task["dense"] for name, task in zero_shot["tasks"].items()},
        "documents": [[*row[:-1], _finite(row[-1])] for row in rows.to_numpy().tolist()],
        "truncated_requests": zero_shot["protocol"]["truncated_requests"],
    }


def write_documents(folder: Path, dense: Scores, pruned: Scores | None) -> None:
    """One row per task, document and metric, dense and pruned (NaN while unknown), so that runs can be paired."""
    columns = ["task", "document", "document_hash", "metric"]
    table = pd.DataFrame(dense["documents"], columns=[*columns, "dense"])
    if pruned is None:
        table["pruned"] = math.nan
    else:
        table = table.merge(pd.DataFrame(pruned["documents"], columns=[*columns, "pruned"]), on=columns, how="outer")
    with replacing(folder / DOCUMENTS) as file:
        table.to_parquet(file)


def _scores(results: Any) -> Scores:
    """Plain values of lm-eval's results."""
    documents = []
    for task, samples in results["samples"].items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                value = sample[metric]
                if isinstance(value, bool | int | float):
                    label = _label(metric, sample["filter"])
                    documents.append([task, sample["doc_id"], sample["doc_hash"], label, _finite(value)])
    return {"metrics": {name: _metrics(values) for name, values in results["results"].items()}, "documents": documents}


def _metrics(values: dict[str, Any]) -> dict[str, float | None]:
    """Numbers by metric; lm-eval's names are ``metric,filter``, and the filter ``none`` is not worth naming."""
    found: dict[str, float | None] = {}
    for key, value in values.items():
        metric, comma, chosen = key.partition(",")
        if comma:
            found[_label(metric, chosen)] = _finite(value)
    return found


def _finite(value: Any) -> float | None:
    """The number, None where it is none: files hold only finite ones."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _label(metric: str, chosen: str) -> str:
    return metric if chosen == "none" else f"{metric},{chosen}"


def _standing(labels: list[str], preferred: str) -> str:
    """The metric that stands for a task: the one asked for where it has it, or else acc, or else its first."""
    for wanted in (preferred, "acc"):
        for label in labels:
            if label.partition(",")[0] == wanted:
                return label
    return labels[0]


def _name(item: Any) -> str:
    return str(item.name if is_group(item) else item.task_name)


def _all_items(items: Iterable[Any]) -> list[Any]:
    """Groups with everything inside of them."""
    return [
        inner
        for item in items
        for inner in [item, *(item.get_all_groups() + item.get_all_tasks() if is_group(item) else [])]
    ]


def _averaged(item: Any, tasks: dict[str, dict[str, Any]]) -> list[str]:
    """What of a task or group counts in the mean accuracy: means over documents of which more is better."""
    if is_group(item) and item.name not in tasks:
        return [name for child in item for name in _averaged(child, tasks)]
    name = _name(item)
    metric = tasks[name]["metric"].partition(",")[0]
    leaves = item.get_all_tasks() if is_group(item) else [item]
    counts = all(
        leaf.aggregation().get(metric) is mean_of_documents and leaf.higher_is_better().get(metric) for leaf in leaves
    )
    return [name] if counts else []


def _shares(item: Any, metric: str, tasks: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How much each task counts in the number of a task or group, as lm-eval aggregates."""
    if not is_group(item):
        return {item.task_name: 1.0}
    plain = metric.partition(",")[0]
    by_size = any(config.weight_by_size for config in item.aggregate_metric_list or [] if config.metric == plain)
    sizes = {task.task_name: tasks[task.task_name]["documents"] if by_size else 1 for task in item.get_all_tasks()}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _paired_stderr(task: str, metric: str, dense: Scores, pruned: Scores) -> float | None:
    """Standard error of the mean difference over the documents; None where documents have no such number."""
    before, after = (
        {document: value for name, document, _, label, value in scores["documents"] if (name, label) == (task, metric)}
        for scores in (dense, pruned)
    )
    if len(before) < 2 or None in before.values() or None in after.values():
        return None
    differences = torch.tensor([after[document] - before[document] for document in before], dtype=torch.float64)
    return float(differences.std(correction=1)) / math.sqrt(len(differences))


def _mean(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy over tasks, dense, pruned and their difference, with standard errors of independent tasks.

    What is not known of every task is None.
    """
    columns = {
        "dense": [(task["dense"] or {}).get(task["metric"]) for task in tasks],
        "dense_stderr": [(task["dense"] or {}).get(stderr_of(task["metric"])) for task in tasks],
        "pruned": [(task["pruned"] or {}).get(task["metric"]) for task in tasks],
        "pruned_stderr": [(task["pruned"] or {}).get(stderr_of(task["metric"])) for task in tasks],
        "difference": [task["difference"] for task in tasks],
        "difference_stderr": [task["difference_stderr"] for task in tasks],
    }
    result: dict[str, float | None] = {}
    for name, values in columns.items():
        if name.endswith("_stderr"):
            result[name] = _combined(values, [1 / len(values)] * len(values) if values else [])
        else:
            result[name] = None if not values or None in values else sum(values) / len(values)
    return result


def _combined(errors: Iterable[float | None], shares: Iterable[float]) -> float | None:
    """Standard error of a weighted sum of independent numbers; None where one is unknown."""
    pairs = list(zip(errors, shares, strict=True))
    if not pairs or any(error is None for error, _ in pairs):
        return None
    return math.sqrt(sum((share * (error or 0.0)) ** 2 for error, share in pairs))


def _requests(results: Any) -> int:
    """How many questions are asked, each counted once: several processes repeat some to have equally many."""
    asked = {
        (task, sample["doc_id"]): len(sample["arguments"])
        for task, samples in results["samples"].items()
        for sample in samples
    }
    return sum(asked.values())


def _fingerprint(results: Any) -> str:
    """Hash of every document, prompt and answer in order, of what the tasks make of them, and of lm-eval's version."""
    digest = hashlib.sha256(version("lm_eval").encode())
    configs = {name: {k: v for k, v in c.items() if k != "metadata"} for name, c in results["configs"].items()}
    digest.update(json.dumps(configs, sort_keys=True, default=str).encode())
    for task, samples in results["samples"].items():
        for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"])):
            kept = [task, *(sample[key] for key in ("doc_id", "filter", "doc_hash", "target_hash", "arguments"))]
            digest.update(json.dumps(kept, default=str).encode())
    return digest.hexdigest()
