"""Keys that are given and can't act are refused."""

import pytest

from statprune.errors import ConfigError
from tests.helpers.command import composed

ENERGY, MOMENTS, SCALE = "compensation=energy", "compensation=moments", "compensation.scale=false"
REFUSED = {
    "evaluation=none evaluation.bos=always": "evaluation.bos=always is for windows, and evaluation.datasets is empty",
    "model.revision=main": "is for models from the hub",
    "evaluation.metric=acc_norm": "is for tasks, and evaluation.tasks is empty",
    "evaluation.metric=acc_norm evaluation.tasks=denoise_rotator5": "which says the metric of each of its tasks",
    "evaluation.num_fewshot=1": "is for tasks",
    "evaluation.limit=5": "is for tasks",
    "evaluation.task_batch_size=2": "is for tasks",
    "evaluation.add_bos_token=true": "evaluation.add_bos_token=true is for tasks",
    "evaluation.chat_template=true": "is for tasks",
    "method=dense +method.alpha=0.5": "has no effect with method=dense",
    "gram_precision=tf32": "neither the method nor what comes after it reads a Gram matrix",
    "method=dense gram_precision=tf32": "gram_precision=tf32 has no effect",
    "method.statistic_calibration=false method.alpha=0.9": "has no effect with method.statistic_calibration=false",
    "method.statistic_calibration=false method.activation=norm": "method.activation=norm has no effect with",
    "method.activation=norm method.activation_power=1": "has no effect with method.activation=norm",
    f"{ENERGY} compensation.rows_first=true compensation.columns=false": "compensation.rows_first=true has no effect",
    f"{ENERGY} compensation.rows_first=true compensation.rows=false": "has no effect with compensation.rows=false",
    f"{MOMENTS} compensation.mean=false compensation.floor=0.1": "has no effect with compensation.mean=false",
    f"{MOMENTS} {SCALE} compensation.groups=4": "compensation.groups=4 has no effect with compensation.scale=false",
    f"{MOMENTS} {SCALE} compensation.shrinkage=1": "has no effect",
    f"{MOMENTS} {SCALE} compensation.min_scale=0.9": "has no effect",
    f"{MOMENTS} {SCALE} compensation.max_scale=1.1": "has no effect",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_key_that_cant_act_is_refused(overrides):
    with pytest.raises(ConfigError, match=REFUSED[overrides]) as caught:
        composed(*overrides.split())
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        "method=dense compensation=none sparsity.ratio=0.7 calibration.samples=3 propagation=dense",
        "model.trust_remote_code=true model.prune_routers=true calibration.min_expert_tokens=0",
        "tracking=disabled tracking.tags=[mine] tracking.project=mine",
        "evaluation.tasks=[bundled] evaluation.limit=5 evaluation.task_batch_size=2",
        "model=opt_125m model.revision=main",
        "method=wanda compensation=least_squares gram_precision=tf32",
        f"{ENERGY} compensation.columns=false compensation.rows=false",
    ],
)
def test_keys_that_a_sweep_needs_for_some_of_its_jobs_are_accepted(overrides):
    assert composed(*overrides.split())
