"""Our composing gives the values that Hydra's own gives."""

from functools import lru_cache
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.compose import choice_names, compose, group_names, plain_values, quote_pattern

CASES = [
    [],
    ["method=wanda"],
    ["method=dense", "sparsity=2_4"],
    ["sparsity=4_8", "method=sparsegpt", "method.damping=0.1", "method.block_size=64"],
    ["sparsity.keep=1", "sparsity.of=4"],
    ["sparsity.layer_ratios=[0.5,0.25]"],
    ["sparsity.layer_ratios={mlp:0.6,self_attn.q:0.25}"],
    ["compensation=moments", "compensation.groups=16"],
    ["compensation=none", "method=cvr"],
    ["method=cvr", "compensation=none"],
    ["experiment=smoke"],
    ["experiment=main", "method=wanda"],
    ["method=wanda", "experiment=main"],
    ["experiment=ablation_compensation", "method=wanda"],
    ["experiment=best_first_order", "seed=3"],
    ["evaluation=full", "evaluation.tasks=[bundled]", "evaluation.limit=10"],
    ["calibration=c4", "calibration.seq_len=64"],
    ["calibration.seq_len=64", "evaluation.seq_len=${calibration.samples}"],
    ["model=opt_125m", "model.dtype=bfloat16", "model.exclude=[down_proj,'q.*']"],
    ["tracking=online", "tracking.tags=[a,b]", "tracking.notes='two words'"],
    ["name=other", "verbose=true", "cache=null", "offload=disk"],
    ["+method.extra=1", "++seed=7", "+new={a:{b:1}}"],
    ["~evaluation.batch_size", "~verbose"],
]
WRONG = [
    ["method=foo"],
    ["methd=wanda"],
    ["method=wanda", "method.alpha=1"],
    ["method.alfa=1"],
    ["~compensation.groups"],
    ["~evaluation.path"],
    ["+seed=1"],
    ["evaluation.seq_len.deep=1"],
]


def hydras(overrides: list[str]) -> DictConfig:
    """What Hydra composes, without its own part; not to be changed, as the next test gets the same."""
    return _composed_by_hydra(tuple(overrides))


@lru_cache
def _composed_by_hydra(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("statprune.conf", version_base="1.3"):
        return hydra_compose("config", [quote_pattern(override) for override in overrides])


def unresolved(config: DictConfig) -> Any:
    """Values as they are composed, with their interpolations and in their order."""
    return OmegaConf.to_yaml(config)


def outcome(composing: Any, overrides: list[str]) -> Any:
    """What composing gives, or the error that it ends in."""
    try:
        return unresolved(composing(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        return type(error)


def ours(overrides: list[str]) -> DictConfig:
    return compose(overrides).config


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_values_are_those_that_hydra_composes(overrides):
    composed, expected = ours(overrides), hydras(overrides)
    assert unresolved(composed) == unresolved(expected)
    assert plain_values(composed) == OmegaConf.to_container(expected, resolve=True)


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_choices_are_those_that_hydra_makes(overrides):
    with initialize_config_module("statprune.conf", version_base="1.3"):
        quoted = [quote_pattern(override) for override in overrides]
        whole = hydra_compose("config", quoted, return_hydra_config=True)
    choices = {group: choice for group, choice in whole.hydra.runtime.choices.items() if "hydra/" not in group}
    assert compose(overrides).choices == choices


@pytest.mark.parametrize("overrides", WRONG, ids=" ".join)
def test_what_hydra_refuses_is_refused(overrides):
    error = outcome(hydras, overrides)
    assert isinstance(error, type)
    assert outcome(ours, overrides) == error


@pytest.mark.parametrize("overrides", [["hydra.job.chdir=true"], ["hydra/launcher=basic", "hydra.verbose=true"]])
def test_overrides_of_hydras_own_part_are_passed_over(overrides):
    assert unresolved(ours([*overrides, "method=wanda"])) == unresolved(hydras(["method=wanda"]))


def test_a_result_is_the_callers_to_change():
    first = compose(["method=wanda"])
    OmegaConf.set_struct(first.config, False)
    first.config.model.path, first.config.model.exclude = "changed", ["all"]
    first.config.evaluation.datasets.append("more")
    del first.config["seed"]
    first.hydra.clear()
    first.choices.clear()
    again = compose(["method=wanda"])
    assert unresolved(again.config) == unresolved(hydras(["method=wanda"]))
    assert again.choices["method"] == "wanda" and "run" in again.hydra


def test_composing_one_after_the_other_leaks_nothing():
    expected = {" ".join(overrides): outcome(hydras, overrides) for overrides in CASES + WRONG}
    for order in (CASES + WRONG, (WRONG + CASES)[::-1]):
        assert {" ".join(overrides): outcome(ours, overrides) for overrides in order} == expected


choices = st.sampled_from(
    [f"{group}={choice}" for group in group_names() if "hydra" not in group for choice in choice_names(group)]
)
values = st.one_of(
    st.sampled_from(["seed", "sparsity.ratio", "method.alpha", "method.power", "calibration.samples"]).flatmap(
        lambda key: (st.integers(0, 9) | st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 3))).map(
            lambda value: f"{key}={value}"
        )
    ),
    st.sampled_from(["compensation.rows", "verbose", "compensation.scale"]).flatmap(
        lambda key: st.sampled_from(["true", "false", "null"]).map(lambda value: f"{key}={value}")
    ),
    st.lists(st.sampled_from(["bundled", "wikitext2", "c4"]), max_size=3).map(
        lambda names: f"evaluation.datasets=[{','.join(names)}]"
    ),
    st.sampled_from(["evaluation.seq_len=${seed}", "+new.key=1", "~verbose", "model.path='a path/with, signs'"]),
)
commands = st.lists(choices | values, max_size=6)


@settings(deadline=None, max_examples=10)
@given(st.lists(commands, min_size=2, max_size=4))
def test_random_commands_compose_as_hydra_composes_them_and_leave_nothing_for_the_next(several):
    first = [outcome(ours, overrides) for overrides in several]
    assert [outcome(ours, overrides) for overrides in reversed(several)] == first[::-1]
    assert first == [outcome(hydras, overrides) for overrides in several]
