"""The reference of the configuration: what it knows of keys, choices and where they come from."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from hydra.core.config_store import ConfigStore

from statprune.config import compose, place
from statprune.config.overrides import override_problems
from statprune.config.place import place_of, use_place
from statprune.config.reference import ALLOCATION, HYDRA_GROUPS, Reference
from statprune.config.reference_keys import plain, shown, type_text
from statprune.core.score import SCORES
from statprune.pruning.allocation import ALLOCATIONS
from statprune.pruning.spec import Propagation
from statprune.system import registry


@pytest.fixture(scope="module")
def reference():
    return Reference()


@pytest.fixture
def fresh(monkeypatch):
    """Configurations that are read anew, here and after the test."""
    monkeypatch.setattr(place._Current, "place", None)
    compose._configs_of.cache_clear()
    yield
    compose._configs_of.cache_clear()


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "true or false"),
        (bool | None, "true, false or null"),
        (float | None, "float or null"),
        (list[str], "list of texts"),
        (tuple[float, ...], "list of floats"),
        (Propagation, "one of pruned, sequential, dense"),
        (Annotated[Any, "a list or a mapping"], "a list or a mapping"),
        (Any, "any value"),
    ],
    ids=str,
)
def test_types_are_written_as_people_do(annotation, text):
    assert type_text(annotation) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (1e-12, "1.0e-12"), ([], "[]"), (["a", "b"], "[a, b]"), ("${a.b}", "${a.b}")],
    ids=str,
)
def test_defaults_are_shown_as_the_printed_configuration_has_them(value, text):
    assert shown(value) == text


class Mode(Enum):
    """As a launcher's configuration has it."""

    DEFAULT = "default"


class Texts(StrEnum):
    """An enum whose members are texts."""

    ONE = "the first"


@pytest.mark.parametrize(
    ("value", "text"),
    [(Mode.DEFAULT, "DEFAULT"), (Texts.ONE, "ONE"), (Path("a/b"), "a/b"), ({"mode": Mode.DEFAULT}, "{mode: DEFAULT}")],
    ids=str,
)
def test_values_of_plugins_that_yaml_has_no_form_for_are_shown_as_people_write_them(value, text):
    assert shown(plain(value)) == text


@dataclass
class LauncherOfAPlugin:
    """What Hydra's Ray launcher has in its configuration: an enum and a path."""

    _target_: str = "somewhere.Launcher"
    mode: Mode = Mode.DEFAULT
    folder: Path = Path("a/b")


def test_launchers_of_plugins_may_hold_enums_and_paths(fresh):
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="of_a_plugin", node=LauncherOfAPlugin, provider="a plugin")
    try:
        choice = Reference().group("hydra/launcher").choice("of_a_plugin")
        assert choice.problem is None
        assert {key.name: key.shown_default for key in choice.sets} == {
            "hydra.launcher.mode": "DEFAULT",
            "hydra.launcher.folder": "a/b",
        }
    finally:
        del store.repo["hydra"]["launcher"]["of_a_plugin.yaml"]


def ours(group):
    """The choices that statprune has: an installed launcher, Ray's for one, may bring some without a word."""
    return [choice for choice in group.choices if not choice.origin]


def test_every_key_has_a_meaning_and_a_type(reference):
    keys = [*reference.keys, *(key for group in reference.groups for key in group.keys)]
    keys += [key for group in reference.groups for choice in ours(group) for key in choice.sets]
    assert [key.name for key in keys if not (key.meaning and key.type)] == []


def test_keys_that_count_something_have_a_unit(reference):
    keys = {key.name: key for name in ("calibration", "evaluation") for key in reference.group(name).keys}
    units = {name: key.unit for name, key in keys.items() if key.type.startswith("int")}
    assert None not in units.values()
    assert units["calibration.seq_len"] == "tokens" and units["evaluation.limit"] == "documents"


def test_every_choice_has_a_summary(reference):
    assert [choice.name for group in reference.groups for choice in group.choices if not choice.summary] == []


@pytest.mark.parametrize(
    ("group", "choice", "part"),
    [
        ("method", "ria", "Zhang et al., ICLR 2024"),
        ("method", "cvr", "c_j = (Var_i(W_ij) + ε)^(−α/2)"),
        ("compensation", "columns", "arXiv 2602.07375, §3.2"),
        ("sparsity", "2_4", "N:M is kept:group"),
        ("calibration", "wikitext2", "WikiText-2, raw"),
        (ALLOCATION, "owl", "Yin et al. 2023"),
    ],
)
def test_the_source_of_a_choice_is_that_of_its_code(reference, group, choice, part):
    assert part in reference.group(group).choice(choice).source


def test_a_choice_that_changes_another_tells_which_and_what(reference):
    columns = reference.group("compensation").choice("columns")
    assert columns.based_on == "energy" and [key.assignment for key in columns.sets] == ["compensation.rows=false"]


def test_a_section_has_the_values_that_a_job_with_the_choice_has(reference):
    values = {key.name: key.default for key in reference.section("calibration", "c4")}
    assert values["calibration.samples"] == 128 and values["calibration.min_expert_tokens"] == 32


def test_the_keys_of_an_experiment_are_described_as_those_of_its_choices(reference):
    keys = {key.name: key for key in reference.section("experiment", "main")}
    assert keys["evaluation.seq_len"].unit == "tokens" and "perplexity" in keys["evaluation.datasets"].meaning


def test_what_comes_with_statprune_has_no_other_origin(reference):
    groups = [group for group in reference.groups if group.name not in HYDRA_GROUPS]
    assert [choice.name for group in groups for choice in group.choices if choice.origin] == []


def test_a_plugin_that_fails_is_listed_with_its_sentence(fresh, monkeypatch):
    def entries(group):
        names = {SCORES.group: "broken_score", ALLOCATIONS.group: "broken_allocation"}
        entry = registry._Entry("broken-plugin", "1.2", "no_such_module_of_ours", "thing")
        return ((names[group], entry),) if group in names else ()

    monkeypatch.setattr(registry, "_plugin_entries", entries)
    reference = Reference()
    broken = reference.group("method").choice("broken_score")
    assert broken.origin == "broken-plugin 1.2"
    assert "'broken_score' of broken-plugin 1.2" in broken.problem and "mend or uninstall" in broken.problem
    assert "can't be imported" in reference.group(ALLOCATION).choice("broken_allocation").problem
    assert reference.group("method").choice("wanda").problem is None
    (problem,) = override_problems(["sparsity.allocation=broken_allocation"])
    assert "'broken_allocation' of broken-plugin 1.2" in problem
    assert override_problems(["sparsity.allocation=owl"]) == []


def test_files_of_the_users_are_listed_with_their_folder_comments_and_problems(fresh, tmp_path):
    for group, name, text in (
        ("method", "mild", "# CVR, but mild.\ndefaults:\n  - cvr\nalpha: 0.25 # less than usual\n"),
        ("method", "wrong", "name: nobody\n"),
        ("colour", "red", "# Red.\nhue: 0 # on the wheel [degrees]\nnested:\n  deep: a\n"),
    ):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
    use_place(place_of(None, None, str(tmp_path)))
    reference = Reference()
    mild = reference.group("method").choice("mild")
    assert (mild.summary, mild.based_on, mild.origin) == ("CVR, but mild.", "cvr", str(tmp_path))
    assert [key.assignment for key in mild.sets] == ["method.alpha=0.25"]
    assert {key.name: key.default for key in reference.section("method", "mild")}["method.epsilon"] == 1e-8
    assert "'nobody' is unknown" in reference.group("method").choice("wrong").problem
    red = reference.group("colour").choice("red")
    assert [(key.assignment, key.unit) for key in red.sets] == [
        ("colour.hue=0", "degrees"),
        ("colour.nested.deep=a", None),
    ]
    assert red.sets[0].meaning == "on the wheel"
