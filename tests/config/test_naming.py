"""Names of runs' folders, and what tells two configurations apart."""

import json
import re
from collections import defaultdict

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hypothesis import given
from hypothesis import strategies as st

from statprune.config.checks import parse_config
from statprune.config.compose import choice_names, compose, plain_values
from statprune.config.naming import differing_keys, name_of, other_names, run_name
from statprune.config.place import prepare_plugins

START = "SmolLM2-135M-Instruct.Q4_1_bundled"


def name(*overrides: str) -> str:
    """The name that Hydra's own composing gives a run."""
    prepare_plugins()
    with initialize_config_module("statprune.conf", version_base="1.3"):
        return run_name(_root_=hydra_compose("config", [*overrides], return_hydra_config=True))


@pytest.mark.parametrize(
    ("overrides", "rest"),
    [
        ([], "0.5_cvr_energy_s0"),
        (["sparsity.ratio=0"], "0_cvr_energy_s0"),
        (["sparsity='2_4'", "method=wanda"], "2_4_wanda_none_s0"),
        (["sparsity.keep=2", "sparsity.of=4", "method=wanda"], "2_4_wanda_none_s0"),
        (["method=dense"], "dense_dense_none_s0"),
        (["sparsity.allocation=owl", "compensation=rows"], "owl0.5_cvr_energy-rows_s0"),
        (["compensation=rows_first"], "0.5_cvr_energy-rows-first_s0"),
        (["compensation=moments", "compensation.scale=false"], "0.5_cvr_moments-mean_s0"),
        (["compensation=energy_moments"], "0.5_cvr_moments-energy-first_s0"),
        (["compensation=sampled_least_squares"], "0.5_cvr_least_squares-rows_s0"),
        (["compensation.columns=false", "compensation.rows=false"], "0.5_cvr_energy-off_s0"),
        (["experiment=smoke", "method.alpha=0.5", "verbose=true"], "0.5_cvr_energy_s0"),
    ],
)
def test_a_name_shows_pattern_method_compensation_and_seed(overrides, rest):
    assert name(*overrides) == f"{START}_{rest}"


def test_patterns_that_a_name_does_not_show_tell_runs_apart():
    names = {name("method=dense", pattern) for pattern in ("sparsity='2_4'", "sparsity.ratio=0.6", "sparsity='4_8'")}
    names |= {name("sparsity.layer_ratios=[0.5]", f"sparsity.ratio={ratio}") for ratio in (0.3, 0.4)}
    assert len(names) == 5


def test_explicit_ratios_are_a_hash_behind_the_name():
    first = name("sparsity.layer_ratios=[0.5]", "seed=3")
    second = name("sparsity.layer_ratios=[0.25]", "seed=3")
    assert all(re.fullmatch(rf"{START}_given_cvr_energy_s3_[0-9a-f]{{8}}", text) for text in (first, second))
    assert first != second


def test_another_evaluation_is_a_word_and_a_hash_behind_the_name():
    names = {name(f"evaluation={choice}") for choice in ("none", "zero_shot", "full")}
    assert len(names) == 3
    ends = rf"{START}_0\.5_cvr_energy_s0_evaluation=[a-z-]+_[0-9a-f]{{8}}"
    assert all(re.fullmatch(ends, text) for text in names)


def test_another_model_shows_in_the_name_and_in_its_hash(tiny_folder):
    assert re.fullmatch(r"model_bundled_0\.5_cvr_energy_s0_[0-9a-f]{8}", name(f"model.path={tiny_folder}"))


def test_different_values_have_different_names(tiny_folder):
    names = {name("method.alpha=1"), name("method.alpha=2"), name(f"model.path={tiny_folder}")}
    names |= {name("sparsity.layer_ratios=[0.5]", "seed=3"), name("sparsity.layer_ratios=[0.25]", "seed=3")}
    assert len(names) == 5


@pytest.mark.parametrize("group", ["method", "compensation", "refinement", "sparsity", "experiment"])
def test_choices_of_a_group_that_compute_something_else_have_different_folders(group):
    hashes = defaultdict(set)
    for choice in choice_names(group):
        composition = compose([f"{group}='{choice}'"])
        values = plain_values(composition.config)
        hashes[values["name"], name_of(values, composition.choices)].add(parse_config(values).hash())
    assert [found for found in hashes.values() if len(found) > 1] == []


def test_a_changed_key_is_a_word_before_the_hash():
    assert re.fullmatch(rf"{START}_0\.5_cvr_energy_s0_alpha=0\.25_[0-9a-f]{{8}}", name("method.alpha=0.25"))


def test_a_key_that_ends_like_another_is_shown_whole():
    changed = name("calibration.seq_len=64", "method.epsilon=0.1")
    assert "_s0_method.epsilon=0.1_calibration.seq_len=64_evaluation.seq_len=64_" in changed


def test_three_keys_at_most_are_shown_those_of_the_pruning_first():
    several = ["propagation=dense", "method.alpha=0", "evaluation.max_windows=4", "calibration.samples=8"]
    expected = "_s0_alpha=0_samples=8_max_windows=4_"
    assert expected in name(*several) and expected in name(*several[::-1])


@pytest.mark.parametrize("change", ["model.exclude=[gate]", "evaluation.max_windows=null", "evaluation.seq_len=2048"])
def test_lists_and_nothing_are_not_shown(change, tiny_folder):
    *_, before, hashed = name(f"model.path={tiny_folder}", change).split("_")
    assert before in ("s0", "len=2048") and len(hashed) == 8


def test_a_models_name_is_shown_once(tiny_folder):
    assert "=" not in name(f"model.path={tiny_folder}", "calibration.source=text", "calibration.path=x")[:40]


def test_a_saved_model_has_the_name_of_its_run(tmp_path):
    saved = tmp_path / "tiny_0.5_cvr_energy_s0_alpha=0.25_1a2b3c4d" / "model"
    evaluated = name("method=dense", f"model.path='{saved}'")
    begin = "tiny_0.5_cvr_energy_s0_alpha-0.25_1a2b3c4d_bundled_dense_dense_none_s0_"
    assert evaluated.startswith(begin)
    hashed = evaluated.removeprefix(begin)
    assert f"model_bundled_dense_dense_none_s0_{hashed}" in other_names(evaluated, str(saved))


def test_a_model_saved_by_a_run_of_a_saved_model_and_so_on_can_have_a_folder(tmp_path):
    path = tmp_path / ("_".join(["x" * 50] * 4) + "_s0") / "model"
    assert len(name("method=dense", f"model.path={path}")) < 180


def test_whole_numbers_have_one_name():
    assert name("method.alpha=1.0") == name("method.alpha=1")


plain = st.recursive(
    st.integers(-3, 3) | st.booleans() | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)
configurations = st.dictionaries(st.sampled_from("abcd"), plain, max_size=4)


@given(configurations)
def test_a_configuration_differs_from_itself_nowhere(config):
    assert differing_keys(config, json.loads(json.dumps(config))) == []


@given(configurations)
def test_a_configuration_differs_from_another_where_that_was_changed(config):
    changed = json.loads(json.dumps(config)) | {"new": {"key": 1}}
    assert differing_keys(config, changed) == ["new.key"] == differing_keys(changed, config)


@given(configurations)
def test_keys_that_change_no_number_do_not_differ(config):
    assert differing_keys({**config, "name": "x", "tracking": {"mode": 1}}, {**config, "name": "y"}) == []
