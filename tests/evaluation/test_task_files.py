"""Which files the tasks of a user are read from."""

import pytest

from statprune.evaluation.task_files import task_files
from tests.helpers.tasks import choices, task_yaml


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "tasks"
    own.mkdir()
    choices("one", own, 3, include="base.yaml")
    (own / "base.yaml").write_text("metric_list: []\n")
    (own / "scoring.py").write_text("")
    with (own / "one.yaml").open("a") as file:
        file.write("process_results: !function scoring.results\n")
    (own / "notes.md").write_text("")
    return own


def test_a_folder_is_read_with_the_documents_its_yamls_name(folder):
    assert set(task_files(str(folder))) == {"one.yaml", "base.yaml", "scoring.py", "one.json"}


def test_a_yaml_is_read_with_what_it_includes_its_code_and_its_documents(folder):
    assert set(task_files(str(folder / "one.yaml"))) == {"one.yaml", "base.yaml", "scoring.py", "one.json"}


def test_documents_elsewhere_and_patterns_are_found(folder, tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    task_yaml("two", folder, dataset_kwargs={"data_files": {"test": str(tmp_path / "*.jsonl")}})
    assert set(task_files(str(folder / "two.yaml"))) == {
        "two.yaml",
        str(tmp_path / "a.jsonl"),
        str(tmp_path / "b.jsonl"),
    }


@pytest.mark.parametrize("content", ["[", "- a", "", "dataset_path: '.'\n", "task: test\n"])
def test_a_yaml_that_names_nothing_is_itself(content, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "file").touch()
    (tmp_path / "own.yaml").write_text(content)
    assert set(task_files(str(tmp_path / "own.yaml"))) == {"own.yaml"}
