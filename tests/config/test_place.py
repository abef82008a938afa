"""Where configurations come from: own folders, the search path, and what names of runs tell of own files."""

import pytest

from statprune.config.checks import parse_config
from statprune.config.compose import choice_names, compose, plain_values
from statprune.config.naming import name_of
from statprune.config.overrides import named_plugins, override_problems, searchpath_of
from statprune.config.place import ConfigPlace, place_of, use_place
from statprune.errors import ConfigError

FILES = {
    "experiment/quick.yaml": "# @package _global_\nname: quick\nplugins: [scores.py]\nseed: 3\n",
    "method/strong.yaml": "defaults: [ria]\npower: 0.7\n",
    "calibration/few.yaml": "defaults: [bundled]\nsamples: 4\n",
    "model/mine.yaml": "path: /a/model\n",
    "mine.yaml": "defaults: [config, _self_]\nseed: 5\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(params=["--config-dir", "--config-path", "hydra.searchpath"])
def place(request, folder):
    """A command's place, by each way of naming a folder; this process composes from there."""
    flags = {"--config-dir": (None, None, str(folder)), "--config-path": (None, str(folder), None)}
    place = place_of(*flags.get(request.param, (None, None, None)))
    if request.param == "hydra.searchpath":
        place = place.with_folders(searchpath_of([f"hydra.searchpath=[file://{folder}]"]), request.param)
    use_place(place)
    yield place
    use_place(place_of(None, None, None))


def named(*overrides: str) -> str:
    composed = compose(overrides)
    return name_of(plain_values(composed.config), composed.choices)


@pytest.mark.parametrize("choice", ["experiment=quick", "method=strong", "calibration=few", "model=mine"])
def test_own_files_are_choices_beside_ours(place, choice):
    group, _, name = choice.partition("=")
    assert name in choice_names(group) and {"cvr", "wanda"} <= set(choice_names("method"))
    assert [problem for problem in override_problems([choice]) if "model.path" not in problem] == []


def test_an_own_file_is_suggested(place):
    (problem,) = override_problems(["experiment=quik"])
    assert problem.endswith("(did you mean experiment=quick?)")


def test_own_files_are_composed(place):
    config = parse_config(plain_values(compose(["method=strong", "calibration=few", "experiment=quick"]).config))
    assert config.method.plain_options == {"power": 0.7} and config.method.name == "ria"
    assert (config.calibration.samples, config.settings.seed, config.settings.name) == (4, 3, "quick")


@pytest.mark.parametrize("choice", ["method=strong", "calibration=few", "experiment=quick"])
def test_a_run_by_an_own_file_is_not_named_as_another_run(place, choice):
    ours = {"method=strong": "method=ria", "calibration=few": "calibration=bundled", "experiment=quick": "seed=3"}
    common = ["name=x", "compensation=none", *(["evaluation.max_windows=2"] if "experiment" in choice else [])]
    assert (named(*common, choice) == named(*common, ours[choice])) == (choice == "experiment=quick")


def test_an_experiment_brings_its_plugins(place):
    assert named_plugins(["experiment=quick"]) == ["scores.py"]
    assert named_plugins(["experiment=quick", "plugins=[other.py]"]) == ["other.py"]
    assert named_plugins(["plugins=other.py"]) == ["other.py"] and named_plugins([]) == []


def test_another_primary_configuration_is_composed(folder):
    use_place(place_of("mine", None, str(folder)))
    assert compose().config.seed == 5
    use_place(place_of(None, None, None))


def test_a_primary_configuration_that_is_nowhere_is_a_sentence(folder):
    use_place(place_of("other", None, str(folder)))
    with pytest.raises(ConfigError, match="--config-name other is in none of the folders"):
        compose()
    use_place(place_of(None, None, None))


@pytest.mark.parametrize("flags", [(None, "nowhere", None), (None, None, "nowhere")], ids=["path", "dir"])
def test_a_folder_that_is_not_there_is_a_sentence(flags):
    with pytest.raises(ConfigError, match=r"nowhere is no folder"):
        place_of(*flags)


@pytest.mark.parametrize(
    ("value", "message"),
    [("mine", "is no list"), ("[file://nowhere]", "is no folder"), ("[nowhere]", "write file://")],
)
def test_an_unfit_search_path_is_a_sentence(value, message):
    with pytest.raises(ConfigError, match=message):
        searchpath_of([f"hydra.searchpath={value}"])


def test_a_job_composes_from_the_place_it_came_from(place):
    assert isinstance(place, ConfigPlace) and compose(["method=strong"], place).choices["method"] == "strong"
