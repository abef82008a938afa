"""``statprune init``: the skeleton of a package of one's own, which is the example that is tested."""

import re

import pytest

from statprune.cli.init import DISTRIBUTION, MODULE, module_name, skeleton
from statprune.errors import StatpruneError
from tests.helpers.plugins import EXAMPLE
from tests.helpers.verbs import verb


def contents(folder):
    """Text of each file below a folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_the_skeleton_is_the_example_that_is_tested(tmp_path):
    assert verb("init", tmp_path / "new", "--name", DISTRIBUTION) == 0
    assert contents(tmp_path / "new") == contents(EXAMPLE)


def test_the_names_are_those_of_the_folder(tmp_path, capsys):
    assert verb("init", tmp_path / "My-own.pruning") == 0
    written = contents(tmp_path / "My-own.pruning")
    assert "my_own_pruning/scores.py" in written and 'name = "My-own.pruning"' in written["pyproject.toml"]
    assert not re.search(f"{DISTRIBUTION}|{MODULE}", "".join([*written, *written.values()]))
    assert f"pip install -e {tmp_path / 'My-own.pruning'}" in capsys.readouterr().out


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "empty").mkdir()
    assert verb("init", tmp_path / "empty") == 0


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert verb("init", tmp_path, "--name", "my-pruning") == 1
    assert "is there already and no empty folder" in capsys.readouterr().err
    assert contents(tmp_path) == {"mine.txt": "mine"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my pruning", "'my pruning' can't be the name of a package; give --name"),
        ("2bits", "can't be the name of a package"),
        ("größer", "can't be the name of a package"),
        ("class", "can't be the name of a package"),
        ("json", "the package 'json' is Python's already"),
        ("statprune", "the package 'statprune' is statprune's already"),
        ("PyYAML", "the package 'pyyaml' is PyYAML's already"),
    ],
)
def test_names_that_no_package_can_have(name, sentence):
    with pytest.raises(StatpruneError, match=sentence):
        module_name(name)


def test_the_skeleton_has_tests_and_configurations():
    paths = [path for path, _ in skeleton()]
    assert f"{MODULE}/conf/experiment/example.yaml" in paths and "tests/test_choices.py" in paths
