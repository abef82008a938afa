"""What a command leaves that comes to nothing."""

import pytest

from statprune.cli.folders import no_empty_folders
from tests.helpers.command import statprune


def leave(root, *made, files=()):
    """What becomes of folders that are made below a root, and of files in them."""
    with no_empty_folders([root], made):
        for folder in made:
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in files:
            path.write_text(text)


def test_empty_folders_go_with_those_that_hold_only_them(tmp_path):
    leave(tmp_path / "outputs", tmp_path / "outputs" / "name" / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_log_does_not_count(tmp_path):
    run = tmp_path / "outputs" / "name" / "run"
    leave(tmp_path / "outputs", run, files=[(run / "run.log", "")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "text"), [("run.log", "loading"), ("result.json", "")])
def test_a_folder_with_anything_else_stays(name, text, tmp_path):
    run = tmp_path / "outputs" / "name" / "run"
    leave(tmp_path / "outputs", run, files=[(run / name, text)])
    assert [path.name for path in run.iterdir()] == [name]


def test_folders_that_were_there_stay(tmp_path):
    (tmp_path / "outputs" / "name").mkdir(parents=True)
    leave(tmp_path / "outputs", tmp_path / "outputs" / "name" / "run")
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs", tmp_path / "outputs" / "name"]


def test_folders_go_where_an_error_ends_the_command(tmp_path):
    with pytest.raises(SystemExit), no_empty_folders([tmp_path / "outputs"], []):
        (tmp_path / "outputs").mkdir()
        raise SystemExit(1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_place_for_it_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    leave(tmp_path / "file" / "outputs")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    "command",
    [["hydra.nothere=1"], ["-m", "hydra.nothere=1", "seed=0,1"], ["hydra.run.dir=deep/er", "hydra.nothere=1"]],
    ids=" ".join,
)
def test_a_command_that_hydra_refuses_leaves_nothing(command, tmp_path):
    assert statprune(*command, cwd=tmp_path).returncode != 0
    assert list(tmp_path.iterdir()) == []
