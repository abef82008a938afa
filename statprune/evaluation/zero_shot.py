"""Zero-shot accuracy with lm-eval's own harness on the model in memory: rehearsed first, then measured."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from operator import mul
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lm_eval import simple_evaluate
from lm_eval.api.metrics import mean as mean_of_documents

from statprune.errors import DataError, first_line
from statprune.evaluation.accuracy import (
    Answers,
    DocumentAnswer,
    Metrics,
    TaskPlan,
    TaskResult,
    ZeroShotProtocol,
    ZeroShotResult,
    combined_stderr,
    finite_or_none,
    flipped_share,
    mean_accuracy,
    paired_stderr,
)
from statprune.evaluation.harness import Harness, Rehearsal, quiet
from statprune.evaluation.prompts import check_tokenizer, prompt_tokens, prompts_of
from statprune.evaluation.task_code import sandboxed
from statprune.evaluation.tasks import TaskOptions, TaskSuite, is_group
from statprune.model.loading import check_tokens
from statprune.system.console import progress
from statprune.system.distributed import gathered, size

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Item: TypeAlias = Group | Task

log = logging.getLogger(__name__)
# lm-eval's defaults, which its command line has, too
SEEDS = {"random_seed": 0, "numpy_random_seed": 1234, "torch_random_seed": 1234, "fewshot_random_seed": 1234}

BOOTSTRAPS = 100_000  # samples for standard errors that have no formula; lm-eval's default, too


@dataclass(frozen=True)
class Plan:
    """What a rehearsal tells of the evaluation to come.

    Attributes:
        tasks: by task or group.
        averaged: names whose metrics make the mean accuracy.
        protocol: everything else that changes a number.
        requests: of this process.
        longest: tokens of the longest request.
    """

    tasks: dict[str, TaskPlan]
    averaged: list[str]
    protocol: ZeroShotProtocol
    requests: int
    longest: int


class ZeroShot:
    """An evaluation that is ready to run.

    Args:
        suite: the tasks, loaded.
        model: a causal language model.
        tokenizer: its own.
        options: of the evaluation.

    Raises:
        ModelError: a chat template is asked for, and the tokenizer has none.
        DataError: a task fails in the rehearsal.
    """

    def __init__(
        self, suite: TaskSuite, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", options: TaskOptions
    ):
        self._suite, self._tokenizer, self._options = suite, tokenizer, options
        check_tokenizer(suite, tokenizer, options)
        rehearsal = self._rehearsal(model)
        try:
            results = self._evaluate(rehearsal, bootstrap_iters=0)
        except Exception as error:  # a template that does not fit a document, a metric that lacks a package
            log.debug("the rehearsal failed", exc_info=True)
            raise DataError(
                f"{self._failing_task(model)} can't be run ({type(error).__name__}: {first_line(error)}); "
                "mend the task, or leave it out of evaluation.tasks"
            ) from error
        tokens = prompt_tokens(rehearsal, prompts_of(results))
        ends = torch.tensor([tokens.smallest, tokens.largest], device="cpu")
        check_tokens(model, ends, "a prompt of evaluation.tasks")
        self._check_options(results)
        dtype = str(model.dtype).removeprefix("torch.")
        self.plan = self._planned(rehearsal, results, self._protocol(rehearsal, results, dtype, tokens.with_bos))

    def measure(self, model: "PreTrainedModel", name: str) -> Answers:
        """Ask the model.

        Args:
            model: the one that was rehearsed with, or the same pruned.
            name: shown beside the progress.

        Raises:
            DataError: lm-eval fails.
        """
        options = self._options
        with progress(f"{name} zero-shot requests", self.plan.requests) as advance:
            harness = Harness(model, self._tokenizer, options.batch_size, options.add_bos_token, advance)
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
        return _answers(results, sum(gathered(harness.truncated)))

    def compared(self, dense: Answers, pruned: Answers | None) -> ZeroShotResult:
        """Both models side by side; ``pruned`` None while unknown."""
        tasks = {name: self._compared_task(name, task, dense, pruned) for name, task in self.plan.tasks.items()}
        protocol = replace(self.plan.protocol, truncated_requests=(pruned or dense).truncated_requests)
        mean = mean_accuracy([tasks[name] for name in self.plan.averaged])
        return ZeroShotResult(tasks, mean, protocol, self.plan.averaged)

    def _rehearsal(self, model: "PreTrainedModel") -> Rehearsal:
        return Rehearsal(model, self._tokenizer, self._options.batch_size, self._options.add_bos_token)

    def _failing_task(self, model: "PreTrainedModel") -> str:
        """The task that fails when it is rehearsed alone, in words."""
        for item in self._suite.items:
            try:
                self._evaluate(self._rehearsal(model), bootstrap_iters=0, items=[item])
            except Exception:
                return f"the task {_name(item)}"
        return "the zero-shot tasks"

    def _evaluate(
        self, harness: Harness, bootstrap_iters: int = BOOTSTRAPS, items: "list[Item] | None" = None
    ) -> dict[str, Any]:
        """lm-eval's results, the same in every process."""
        options = self._options
        with quiet(), sandboxed(self._suite.is_sandboxed):
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
        first: dict[str, Any] = gathered(results)[0] if size() > 1 else results
        return first

    def _check_options(self, results: Mapping[str, Any]) -> None:
        """Raise DataError where a number of shots or a metric was asked for that has no effect."""
        shots, metric = self._options.num_fewshot, self._options.metric
        fixed = [task.task_name for task in self._suite.tasks if results["n-shot"].get(task.task_name) != shots]
        if shots is not None and fixed:
            raise DataError(
                f"evaluation.num_fewshot={shots} has no effect on {', '.join(fixed)}, whose YAML fixes the number of "
                "examples; leave it out, or leave them out of evaluation.tasks"
            )
        own = self._suite.metrics
        for task, chosen in own.items():
            if chosen not in _metrics(results["results"][task]):
                raise DataError(
                    f"a set in evaluation.tasks takes {chosen} of {task}, which lm-eval {version('lm_eval')} does not "
                    "have; name its tasks themselves, with evaluation.metric"
                )
        known = {name for task, values in results["results"].items() if task not in own for name in _metrics(values)}
        names = {name.partition(",")[0] for name in known if not name.partition(",")[0].endswith("_stderr")}
        if metric != TaskOptions.metric and metric not in names:
            raise DataError(
                f"evaluation.metric={metric} is a metric of no task in evaluation.tasks; choose from "
                f"{', '.join(sorted(names))}"
            )

    def _protocol(
        self, rehearsal: Rehearsal, results: Mapping[str, Any], dtype: str, with_bos: int
    ) -> ZeroShotProtocol:
        options = self._options
        return ZeroShotProtocol(
            lm_eval=version("lm_eval"),
            batch_size=options.batch_size,
            limit=options.limit,
            num_fewshot=options.num_fewshot,
            add_bos_token=options.add_bos_token,
            chat_template=options.chat_template,
            dtype=dtype,
            seeds=SEEDS,
            bootstrap_iters=BOOTSTRAPS,
            requests_with_bos=with_bos,
            max_length=rehearsal.max_length,
            requests=len(prompts_of(results)),
            requests_sha256=_fingerprint(results),
        )

    def _planned(self, rehearsal: Rehearsal, results: Mapping[str, Any], protocol: ZeroShotProtocol) -> Plan:
        tasks = {}
        for item in _all_items(self._suite.items):
            metrics = _metrics(results["results"].get(_name(item), {}))
            names = [name for name in metrics if not name.partition(",")[0].endswith("_stderr")]
            if names:  # not for a group without a number of its own
                tasks[_name(item)] = self._planned_task(item, names, results)
        averaged = [name for item in self._suite.items for name in _averaged(item, tasks)]
        return Plan(tasks, averaged, protocol, len(rehearsal.requests), rehearsal.longest())

    def _planned_task(self, item: "Item", metrics: list[str], results: Mapping[str, Any]) -> TaskPlan:
        name = _name(item)
        counts = [results["n-samples"][leaf.task_name] for leaf in _leaves(item)]
        return TaskPlan(
            metric=_standing_metric(metrics, self._suite.metrics.get(name, self._options.metric)),
            shots=results["n-shot"].get(name),
            version=results["versions"].get(name),
            documents=sum(count["effective"] for count in counts),
            documents_in_all=sum(count["original"] for count in counts),
            limit=self._options.limit,
        )

    def _compared_task(self, name: str, plan: TaskPlan, dense: Answers, pruned: Answers | None) -> TaskResult:
        """The task's metrics, and the difference of the standing one with its error over the same documents."""
        sides = {"dense": dense.metrics[name], "pruned": pruned.metrics[name] if pruned else None}
        unknown = TaskResult(**vars(plan), **sides, difference=None, difference_stderr=None)  # type: ignore[arg-type]
        if pruned is None:
            return unknown
        before, after = dense.metrics[name][plan.metric], pruned.metrics[name][plan.metric]
        if before is None or after is None:
            return unknown
        item = next(item for item in _all_items(self._suite.items) if _name(item) == name)
        weights = _weights(item, plan.metric, self.plan.tasks)
        errors = [paired_stderr(task, plan.metric, dense, pruned) for task in weights]
        error = combined_stderr(errors, weights.values())
        shares = [flipped_share(task, plan.metric, dense, pruned) for task in weights]
        known = [share for share in shares if share is not None]
        flips = sum(map(mul, known, weights.values())) if len(known) == len(shares) else None
        return replace(unknown, difference=after - before, difference_stderr=error, flips=flips)


def _answers(results: Mapping[str, Any], truncated_requests: int) -> Answers:
    """What lm-eval's results hold of the model."""
    documents = []
    for task, samples in results["samples"].items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                value = sample[metric]
                if isinstance(value, bool | int | float):
                    name = _metric_name(metric, sample["filter"])
                    answer = finite_or_none(value)
                    documents.append(DocumentAnswer(task, sample["doc_id"], sample["doc_hash"], name, answer))
    metrics = {name: _metrics(values) for name, values in results["results"].items()}
    return Answers(metrics, documents, truncated_requests)


def _metrics(values: Mapping[str, Any]) -> Metrics:
    """Numbers by metric; lm-eval's names are ``metric,filter``, and the filter ``none`` is not worth naming."""
    metrics: Metrics = {}
    for key, value in values.items():
        metric, comma, chosen_filter = key.partition(",")
        if comma:
            metrics[_metric_name(metric, chosen_filter)] = finite_or_none(value)
    return metrics


def _metric_name(metric: str, chosen_filter: str) -> str:
    return metric if chosen_filter == "none" else f"{metric},{chosen_filter}"


def _standing_metric(names: list[str], preferred: str) -> str:
    """The metric that stands for a task: the preferred one where the task has it, or else acc, or else its first."""
    for candidate in (preferred, "acc"):
        for name in names:
            if name.partition(",")[0] == candidate:
                return name
    return names[0]


def _name(item: "Item") -> str:
    return str(item.name if is_group(item) else item.task_name)


def _leaves(item: "Item") -> "list[Task]":
    """The single tasks of a group, or the task itself."""
    leaves: list[Task] = item.get_all_tasks() if is_group(item) else [item]
    return leaves


def _all_items(items: "Iterable[Item]") -> "list[Item]":
    """Groups with everything inside of them."""
    return [
        inner
        for item in items
        for inner in [item, *(item.get_all_groups() + item.get_all_tasks() if is_group(item) else [])]
    ]


def _averaged(item: "Item", tasks: Mapping[str, TaskPlan]) -> list[str]:
    """What of a task or group counts in the mean accuracy: means over documents of which more is better."""
    name = _name(item)
    if is_group(item) and name not in tasks:
        return [inner for child in item for inner in _averaged(child, tasks)]
    metric = tasks[name].metric.partition(",")[0]
    counts = all(
        leaf.aggregation().get(metric) is mean_of_documents and leaf.higher_is_better().get(metric)
        for leaf in _leaves(item)
    )
    return [name] if counts else []


def _weights(item: "Item", metric: str, tasks: Mapping[str, TaskPlan]) -> dict[str, float]:
    """How much each task counts in the number of a task or group, as lm-eval aggregates."""
    if not is_group(item):
        return {item.task_name: 1.0}
    plain = metric.partition(",")[0]
    by_size = any(config.weight_by_size for config in item.aggregate_metric_list or [] if config.metric == plain)
    sizes = {leaf.task_name: tasks[leaf.task_name].documents if by_size else 1 for leaf in _leaves(item)}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _fingerprint(results: Mapping[str, Any]) -> str:
    """Hash of every document, prompt and answer in order, of what the tasks make of them, and of lm-eval's version."""
    digest = hashlib.sha256(version("lm_eval").encode())
    configs = {name: {k: v for k, v in c.items() if k != "metadata"} for name, c in results["configs"].items()}
    digest.update(json.dumps(configs, sort_keys=True, default=str).encode())
    hashed = ("doc_id", "filter", "doc_hash", "target_hash", "arguments")
    for task, samples in results["samples"].items():
        for sample in sorted(samples, key=lambda sample: (sample["doc_id"], sample["filter"])):
            digest.update(json.dumps([task, *(sample[key] for key in hashed)], default=str).encode())
    return digest.hexdigest()
