"""Keys that are given and can't act: they are refused, since a run would not say that they did nothing."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from statprune.config.sections import EvaluationConfig, ModelConfig
from statprune.core.methods import DENSE
from statprune.data.token_windows import Bos
from statprune.model.location import locate_model

# keys of evaluation that mean nothing where no task is run
TASK_KEYS = ("tasks", "metric", "num_fewshot", "limit", "task_batch_size", "add_bos_token", "chat_template")


def unused_problems(model: ModelConfig, evaluation: EvaluationConfig, method: Mapping[str, object]) -> list[str]:
    """A sentence for each key that has another value than its default, and no effect.

    Keys that a sweep over methods, models or datasets needs for some of its jobs are not among them: those of
    ``calibration``, ``sparsity`` and ``propagation`` with ``method=dense``, ``model.prune_routers`` and
    ``calibration.min_expert_tokens`` for a model without experts, ``model.trust_remote_code`` for one without code of
    its own, and those of ``tracking`` while it is disabled.

    Args:
        model: the section.
        evaluation: the section.
        method: the section as it was given.
    """
    problems = []
    if model.revision is not None and model.path and Path(locate_model(model.path)).exists():
        problems.append(
            f"model.revision={model.revision} is for models from the hub, and model.path={model.path} is local; "
            "leave it out"
        )
    if not evaluation.tasks:
        defaults = {item.name: item.default for item in fields(evaluation)}
        for key in TASK_KEYS[1:]:
            value = getattr(evaluation, key)
            if value != defaults[key]:
                shown = str(value).lower() if isinstance(value, bool) else value
                problems.append(
                    f"evaluation.{key}={shown} is for tasks, and evaluation.tasks is empty; name some, or leave it out"
                )
    if evaluation.bos is not Bos.auto and not evaluation.datasets:
        problems.append(
            f"evaluation.bos={evaluation.bos.value} is for windows, and evaluation.datasets is empty; "
            "name some, or leave it out"
        )
    options = [key for key in method if key != "name"]
    if method.get("name") == DENSE and options:
        problems.append(f"method.{options[0]} has no effect with method=dense, which prunes nothing; leave it out")
    return problems
