"""``statprune options``, ``statprune --help`` and the docs' reference page: they list what a job is composed of."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from statprune.config import compose as composing
from statprune.config import place
from statprune.config.compose import compose, default_choices
from statprune.config.reference import Reference
from statprune.config.reference_keys import leaves
from statprune.core.score import SCORES
from statprune.pruning.allocation import ALLOCATIONS
from statprune.system.options import defaults
from statprune.system.plugin_files import PLUGINS
from tests.helpers.verbs import verb

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "options.md"
CHOICES = [
    (group.name, choice.name)
    for group in Reference().groups
    if group.name in default_choices() and group.name != "experiment"
    for choice in group.choices
    if not choice.origin  # an installed launcher, Ray's for one, may bring its own
]
PLUGIN = '''
from dataclasses import dataclass

import statprune.core.score


@dataclass(frozen=True)
class Options:
    """Its options.

    Attributes:
        share: how much of it [fraction].
    """

    share: float = 0.125


@statprune.core.score.score()
def sharing_score(weight, statistics, options: Options):
    """A score that shares (Nobody 2031)."""
    return weight.abs()
'''


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The command's place and plugins are put back after each test."""
    monkeypatch.setattr(place._Current, "place", None)
    monkeypatch.setenv(PLUGINS, "")


@pytest.fixture
def shown(capsys):
    """What a verb prints on the terminal."""

    def run(*arguments: object) -> str:
        status = verb(*arguments)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def refused(capsys):
    """The sentence that a verb ends in."""

    def run(*arguments: object) -> str:
        assert verb(*arguments) == 1
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def page() -> set[tuple[str, str]]:
    """The page's keys with their defaults."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| [^|]+ \| `([^`]+)` \|", text, re.MULTILINE)
    return set(rows) | set(re.findall(r"`([\w.]+)=([^`]+)`", text))


@pytest.fixture
def help_text(shown) -> set[tuple[str, str]]:
    """The help's keys with their defaults."""
    words = [word.strip("(),;") for word in shown("--help").split()]
    return {(key, value) for key, is_key, value in (word.partition("=") for word in words) if is_key}


def printed(*overrides: str) -> Iterator[tuple[str, object]]:
    """The keys that ``--cfg job`` prints, and their values."""
    yield from leaves(yaml.safe_load(OmegaConf.to_yaml(compose(overrides).config)))


def missing(listed: set[tuple[str, str]], *overrides: str) -> list[str]:
    """The keys that a job prints and a list lacks, or has with other values; the name in a section is its choice's."""
    values = {(key, json.dumps(yaml.safe_load(value))) for key, value in listed if not key.endswith(".name")}
    names = {(key.removesuffix(".name"), value) for key, value in listed}
    return [
        f"{key}={value}"
        for key, value in printed(*overrides)
        if (key, json.dumps(value)) not in values and (key.removesuffix(".name"), value) not in names
    ]


def test_the_page_lists_every_key_of_every_choice_with_its_default(page):
    assert missing(page) == []
    jobs = {f"{group}={choice}": missing(page, f"{group}='{choice}'") for group, choice in CHOICES}
    assert {job: keys for job, keys in jobs.items() if keys} == {}


def test_the_help_lists_every_key_of_every_choice_with_its_default(help_text):
    assert missing(help_text) == []
    jobs = {f"{group}={choice}": missing(help_text, f"{group}='{choice}'") for group, choice in CHOICES}
    assert {job: keys for job, keys in jobs.items() if keys} == {}


def test_a_key_or_a_default_that_is_missing_is_seen(page):
    assert missing(page - {("method.alpha", "0.5")}) == ["method.alpha=0.5"]
    assert missing(page, "seed=7") == ["seed=7"]


@pytest.mark.parametrize("name", ALLOCATIONS.names())
def test_the_options_of_an_allocation_are_in_the_page_and_the_help(name, page, help_text):
    for option, value in defaults(ALLOCATIONS.get(name)).items():
        assert {(f"sparsity.{option}", str(value)), (f"sparsity.{option}", "null")} <= page & help_text


def test_the_help_lists_every_choice_and_verb_with_an_example(shown):
    text = shown("--help")
    reference = Reference()
    for group in reference.groups:
        for choice in group.choices:
            assert f" {group.name}={choice.name}" in text
    assert "statprune -m method=wanda,cvr seed=0,1" in text and "statprune options " in text
    assert "the default" in text and "null: as the" in " ".join(text.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["options"], ["options", "method"], ["options", "compensation=energy"]]
)
def test_lines_are_no_longer_than_a_terminal_unless_a_value_is(arguments, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = [line for line in shown(*arguments).splitlines() if len(line) > 80]
    assert [line for line in long if len(line.split()) > 2] == []


def test_no_argument_shows_all_groups_and_the_other_keys(shown):
    text = " ".join(shown("options").split())
    assert "cvr admm alps dense magnitude" in text and "hydra/launcher" in text
    assert "seed int, default 0 what every random choice starts from" in text


def test_a_group_shows_its_choices_and_common_keys(shown):
    text = " ".join(shown("options", "calibration").split())
    assert "calibration=c4 C4: a window for each drawn document" in text
    assert "calibration.seq_len int, default 512, unit: tokens length of a window" in text


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        (
            "method=cvr",
            ["2602.07375, §3.1", "brings compensation=energy", "method.alpha float, default 0.5 reweighting"],
        ),
        ("sparsity=2_4", ["sparsity.keep int or null, default 2, unit: weights", "sparsity.ratio"]),
        ("compensation=moments", ["δ_ij = M_ij", "compensation.samples int, default 512, unit: rows"]),
        ("compensation=columns", ["is compensation=energy with compensation.rows=false", "compensation.rows true or"]),
        ("model=llama2_7b", ["model.path text, default meta-llama/Llama-2-7b-hf", "model.dtype one of auto"]),
        ("calibration=c4", ["calibration.samples int, default 128, unit: windows"]),
        ("experiment=smoke", ["Seconds, for tests", "calibration.samples int, default 2", "brings tracking=disabled"]),
        ("allocation=owl", ["Yin et al. 2023", "sparsity.max_deviation float, default 0.08, unit: fraction"]),
        ("hydra/launcher=submitit_slurm", ["hydra.launcher.timeout_min int, default 240, unit: minutes"]),
    ],
)
def test_a_choice_shows_its_source_and_every_key(what, parts, shown):
    text = " ".join(shown("options", what).split())
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mehtod"], "mehtod is no group; did you mean method?"),
        (["method.alpha"], "method.alpha is no group; did you mean method?"),
        (["xyzzy"], "xyzzy is no group; the groups are model, calibration"),
        (["method=wand"], "method=wand is not a choice; did you mean method=wanda?"),
        (["allocation=xyzzy"], "sparsity.allocation=xyzzy is not a choice; choose one of uniform, owl"),
        (["method", "--markdown"], "leave the group out"),
        (["--config-dir", "no/folder"], "--config-dir no/folder is no folder"),
        (["--plugins", "no/plugin.py"], "no/plugin.py is no file"),
    ],
)
def test_what_does_not_exist_is_a_sentence(arguments, sentence, refused):
    message = refused("options", *arguments)
    assert message.startswith("statprune: ") and sentence in message and len(message.splitlines()) == 1


def test_json_has_the_facts(shown):
    (alpha,) = [key for key in json.loads(shown("options", "method=cvr", "--json"))["keys"] if "alpha" in key["name"]]
    assert alpha["default"] == 0.5 and alpha["type"] == "float" and alpha["unit"] is None
    assert json.loads(shown("options", "sparsity", "--json"))["default"] == "unstructured"
    assert {group["name"] for group in json.loads(shown("options", "--json"))["groups"]} >= {"method", "hydra/sweeper"}


@pytest.fixture
def plugin(tmp_path):
    """A file that registers a score with an option, which is forgotten after the test."""
    file = tmp_path / "sharing.py"
    file.write_text(PLUGIN)
    composing._configs_of.cache_clear()
    yield file
    SCORES._registered.pop("sharing_score", None)
    composing._configs_of.cache_clear()


def test_a_plugins_keys_are_in_the_list_the_page_and_the_help(plugin, shown):
    text = shown("options", "method=sharing_score", "--plugins", plugin)
    assert "sharing.py" in text and "(Nobody 2031)" in text
    assert "float, default 0.125, unit: fraction" in text and "how much of it" in text
    assert "| `method.share` | float | `0.125` | fraction | how much of it |" in shown("options", "--markdown")
    text = shown("--help", f"plugins=[{plugin}]")
    assert "method=sharing_score" in text and "method.share=0.125" in text


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["options", "method", "--plugins", "{}"], "method=wanda"),
        (["options", "--markdown", "--plugins", "{}"], "| `seed` |"),
        (["--help", "plugins=[{}]"], "method=wanda"),
    ],
)
def test_a_plugin_that_cant_be_imported_is_a_sentence_beside_the_list(arguments, shows, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import no_such_module_of_ours")
    assert verb(*(argument.format(tmp_path / "broken.py") for argument in arguments)) == 1
    captured = capsys.readouterr()
    assert shows in captured.out
    assert "broken.py can't be imported" in captured.err and len(captured.err.splitlines()) == 1


def test_configurations_of_a_folder_are_in_the_list_and_the_help(tmp_path, shown):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# My own.\nseed: 3\n")
    text = shown("options", "experiment=mine", "--config-dir", tmp_path)
    assert str(tmp_path) in text.replace("\n", "") and "My own." in text and "int, default 3" in text
    assert "experiment=mine" in shown("--help", "--config-dir", tmp_path)
    assert "experiment=mine" not in shown("--help")
