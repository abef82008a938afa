"""Presets, defaults, and the hashes and names of recorded configurations."""

import json
import re
from pathlib import Path

import pytest
import yaml

from statprune.config.checks import parse_config
from statprune.config.compose import compose, plain_values
from statprune.config.naming import name_of, other_names
from statprune.config.unused import TASK_KEYS
from statprune.core.admm import Admm
from statprune.core.compensation import COMPENSATIONS
from statprune.core.least_squares import FittedTo, LeastSquares
from statprune.core.methods import method_names, options_class
from statprune.core.moments import Moments
from tests.helpers.command import composed

CONF = Path(__file__).parents[2] / "conf"
RECORDED = json.loads((Path(__file__).parents[1] / "records" / "configurations.json").read_text())


@pytest.mark.parametrize("preset", sorted((CONF / "model").glob("*.yaml")), ids=lambda preset: preset.stem)
def test_a_models_preset_is_composed(preset):
    assert composed(f"model={preset.stem}").model.path == yaml.safe_load(preset.read_text())["path"]


@pytest.mark.parametrize("name", method_names())
def test_a_methods_preset_has_the_codes_defaults(name):
    assert composed(f"method={name}").method.options == options_class(name)()


@pytest.mark.parametrize("name", method_names())
def test_only_cvr_brings_a_compensation(name):
    assert (composed(f"method={name}").compensation is not None) == (name == "cvr")


def test_the_moments_preset_has_the_codes_defaults():
    assert composed("compensation=moments").compensation.value == Moments()


def test_the_presets_of_least_squares_are_all_tokens_and_sampled_rows():
    assert composed("compensation=least_squares").compensation.value == LeastSquares()
    assert composed("compensation=sampled_least_squares").compensation.value == LeastSquares(FittedTo.rows, steps=5)


def test_the_best_presets_are_admm_from_all_tokens_and_from_sampled_rows():
    best, first_order = composed("experiment=best"), composed("experiment=best_first_order")
    assert best.method.value == Admm() and first_order.method.value == Admm(FittedTo.rows)
    assert best.compensation is None and first_order.compensation is None


def test_the_main_preset_is_the_papers_setting():
    main = composed("experiment=main").resolved()
    assert main["model"]["path"] == "meta-llama/Llama-2-7b-hf" and main["evaluation"]["seq_len"] == 4096
    assert (main["calibration"]["samples"], main["calibration"]["seq_len"]) == (128, 2048)
    assert main["compensation"]["name"] == "energy" and main["evaluation"]["datasets"] == ["wikitext2"]


def test_another_method_in_a_preset_brings_the_compensation_that_it_has_without_the_preset():
    assert composed("experiment=main", "method=wanda").compensation is None


@pytest.mark.parametrize("key", ["tasks", "limit"])
def test_settings_of_tasks_are_no_part_of_a_run_without_tasks(key):
    assert key not in composed().resolved()["evaluation"]


def test_settings_of_tasks_are_not_hashed_in_a_run_without_tasks():
    assert composed("evaluation=full", "evaluation.tasks=[bundled]").hash() != composed().hash()
    assert composed().resolved()["evaluation"].keys().isdisjoint(TASK_KEYS)


def test_recorded_configurations_have_the_hashes_they_had():
    hashes = {
        str(entry["overrides"]): parse_config(plain_values(compose(entry["overrides"]).config)).hash()
        for entry in RECORDED
    }
    assert hashes == {str(entry["overrides"]): entry["hash"] for entry in RECORDED}


@pytest.fixture(scope="module")
def recorded_names():
    """By overrides: the name at the time, and today's."""
    names = {}
    for entry in RECORDED:
        composition = compose(entry["overrides"])
        today = name_of(plain_values(composition.config), composition.choices)
        names[" ".join(entry["overrides"])] = entry["name"], today
    return names


def test_recorded_configurations_have_the_names_they_had_beside_words(recorded_names):
    for before, today in recorded_names.values():
        parts = re.fullmatch(r"(.*)(_[0-9a-f]{8})", before)
        begin, hashed = parts.groups() if parts else (before, "")
        assert today.startswith(begin) and today.endswith(hashed)
        words = today.removeprefix(begin).removesuffix(hashed)
        assert re.fullmatch(r"(?:_[a-z_.]+=[A-Za-z0-9.+-]+){0,3}" if hashed else "", words), today


def test_recorded_names_without_a_hash_have_no_words(recorded_names):
    plain = [(before, today) for before, today in recorded_names.values() if not re.search(r"_[0-9a-f]{8}$", before)]
    assert plain and all(before == today for before, today in plain)


def test_folders_of_recorded_names_are_found_from_todays(recorded_names):
    for before, today in recorded_names.values():
        assert before == today or before in other_names(today, "/my/model")


def test_a_list_of_ratios_is_recorded_without_another_ratio():
    sparsity = composed("sparsity.layer_ratios=[0.4,0.6]").resolved()["sparsity"]
    assert sparsity["ratio"] is None and sparsity["layer_ratios"] == [0.4, 0.6]


def test_owl_is_recorded_with_its_overall_ratio():
    assert composed("sparsity.allocation=owl", "sparsity.ratio=0.7").resolved()["sparsity"]["ratio"] == 0.7


def test_owl_is_recorded_with_its_authors_options():
    sparsity = composed("sparsity.allocation=owl", "sparsity.ratio=0.7").resolved()["sparsity"]
    assert (sparsity["outlier_threshold"], sparsity["max_deviation"]) == (5.0, 0.08)


def test_a_compensation_is_recorded_by_its_name():
    config = composed("method=wanda", "compensation=moments", "compensation.samples=64")
    assert config.resolved()["compensation"]["name"] == "moments"


def test_there_are_three_compensations():
    assert COMPENSATIONS.names()[:3] == ["energy", "moments", "least_squares"]
