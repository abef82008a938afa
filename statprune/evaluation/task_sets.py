"""Sets of lm-eval tasks that published mean accuracies are over, with the metric of each task where it is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskSet:
    """Tasks that are named together.

    Attributes:
        tasks: of lm-eval.
        metrics: the metric that stands for a task; empty: ``evaluation.metric`` says it.
    """

    tasks: tuple[str, ...]
    metrics: Mapping[str, str] = field(default_factory=dict)


TASK_SETS = {
    # the paper names BoolQ, RTE, HellaSwag, WinoGrande, ARC and OBQA; that ARC means the challenge set is our reading
    "paper": TaskSet(("boolq", "rte", "hellaswag", "winogrande", "arc_challenge", "openbookqa")),
    # Wanda's seven (lib/eval.py of its repository). No metric is stated there: lm-eval prints both
    "wanda7": TaskSet(("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")),
    # DenoiseRotator's five (arXiv 2505.23049, section 4); the metrics are those of lm_eval_utils.py in its repository,
    # and of its Table 12: Llama-3-8B has 80.96, 72.93, 79.19, 77.78 and 52.73 there, whose mean is the 72.72 of Table 2
    "denoise_rotator5": TaskSet(
        ("piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge"),
        {
            "piqa": "acc_norm",
            "winogrande": "acc",
            "hellaswag": "acc_norm",
            "arc_easy": "acc_norm",
            "arc_challenge": "acc_norm",
        },
    ),
    # PermLLM's five (arXiv 2510.10136, section 5, and main.py of its repository); their metric is not known to us
    "permllm5": TaskSet(("hellaswag", "arc_easy", "arc_challenge", "openbookqa", "rte")),
}


def expanded(names: Sequence[str]) -> list[str]:
    """The names with task sets replaced by their tasks."""
    return [task for name in names for task in (TASK_SETS[name].tasks if name in TASK_SETS else (name,))]


def set_metrics(names: Sequence[str]) -> dict[str, str]:
    """The metric of each task whose set says it."""
    return {task: metric for name in names if name in TASK_SETS for task, metric in TASK_SETS[name].metrics.items()}


def metric_problem(names: Sequence[str], metric: str, default: str) -> str | None:
    """A sentence where ``evaluation.metric`` can't act: every task's set says its metric."""
    if metric == default or not names or any(task not in set_metrics(names) for task in expanded(names)):
        return None
    return (
        f"evaluation.metric={metric} has no effect with evaluation.tasks=[{','.join(names)}], which says the metric of "
        "each of its tasks; leave it out, or name the tasks themselves"
    )
