"""Which tasks a name or folder leads to, and a sentence for each that can't be asked."""

from pathlib import Path

import pytest
import yaml

from statprune.errors import ConfigError
from statprune.evaluation.tasks import load_tasks
from tests.helpers.tasks import choices, task_yaml


def empty(folder: Path) -> None:
    folder.mkdir()


def without_data(folder: Path) -> None:
    task_yaml("gone", folder, dataset_kwargs={"data_files": {"test": str(folder / "gone.json")}})


def no_yaml(folder: Path) -> None:
    folder.mkdir()
    (folder / "broken.yaml").write_text("task: broken\n  metric_list: [")


def data_on_the_hub(folder: Path) -> None:
    task_yaml("remote", folder, dataset_path="somebody/no-such-dataset")


def data_with_code(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.py").write_text("import datasets\n")
    task_yaml("script", folder, dataset_path=str(folder / "data.py"))


def group_of_unknown_tasks(folder: Path) -> None:
    folder.mkdir()
    (folder / "group.yaml").write_text(yaml.safe_dump({"group": "half", "task": ["no_such_task"]}))


def name_in_two_files(folder: Path) -> None:
    folder.mkdir()
    for file in ("first", "second"):
        choices("same", folder, 3)
        (folder / "same.yaml").rename(folder / f"{file}.yaml")


def code_of_the_models(folder: Path) -> None:
    folder.mkdir()
    choices("unsafe", folder, 3, unsafe_code=True)


# what writes a folder with something wrong, and what has to be said about it
BAD_FOLDERS = {
    empty: "holds no YAML of an lm-eval task",
    without_data: "the task gone can't be loaded",
    no_yaml: "broken.yaml can't be read",
    data_on_the_hub: "(somebody/no-such-dataset) of the task remote can't be loaded (no network, and not in the",
    data_with_code: "comes with code of its own, which datasets",
    group_of_unknown_tasks: "the group half names no_such_task, which lm-eval does not know",
    name_in_two_files: "both define same; rename one",
    code_of_the_models: "runs code that the model writes",
}


@pytest.mark.parametrize("write", BAD_FOLDERS, ids=lambda write: write.__name__)
def test_what_is_wrong_with_a_folder_is_a_sentence(write, tmp_path):
    write(tmp_path / "tasks")
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(tmp_path / "tasks")])
    (problem,) = caught.value.problems
    assert BAD_FOLDERS[write] in problem and "\n" not in problem and "; " in problem, problem


def test_what_is_wrong_with_several_folders_is_said_at_once(tmp_path):
    several = (empty, no_yaml, name_in_two_files)
    for write in several:
        write(tmp_path / write.__name__)
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(tmp_path / write.__name__) for write in several])
    assert len(caught.value.problems) == len(several)


def test_a_task_that_two_names_lead_to_is_a_mistake(tasks):
    with pytest.raises(ConfigError, match=r"leads to alone twice"):
        load_tasks([f"{tasks}/alone.yaml", str(tasks)])


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """The suite of a group that holds a tag and another group."""
    folder = tmp_path_factory.mktemp("nested")
    for name, tag in (("first", "marked"), ("second", "marked"), ("third", "other")):
        choices(name, folder, 3, tag=tag)
    inner = {"group": "inner", "task": ["third"]}
    (folder / "outer.yaml").write_text(yaml.safe_dump({"group": "outer", "task": ["marked", inner]}))
    return load_tasks([str(folder)])


def test_what_a_group_holds_is_not_asked_again(nested):
    assert [item.name for item in nested.items] == ["outer"]


def test_a_group_may_hold_groups_and_tags(nested):
    assert sorted(task.task_name for task in nested.tasks) == ["first", "second", "third"]
