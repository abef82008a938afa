"""Names of lm-eval's own tasks, found in its files without its index of them, which takes seconds to build."""

import shutil
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager, manager
from lm_eval.tasks._index import TaskIndex

from statprune.errors import ConfigError
from statprune.evaluation import task_names, tasks
from statprune.evaluation.task_names import lm_eval_mentions, names_of_lm_eval


@pytest.fixture
def few(tmp_path, monkeypatch):
    """As if lm-eval had the tasks of two of its folders alone."""
    for folder in ("arc", "super_glue/boolq"):
        shutil.copytree(Path(manager.__file__).parent / folder, tmp_path / folder)
    monkeypatch.setattr(manager, "__file__", str(tmp_path / "manager.py"))
    tasks._manager.cache_clear()
    yield tmp_path
    tasks._manager.cache_clear()


def test_tasks_groups_and_tags_are_listed(few):
    (few / "group.yaml").write_text("group: several # of them\ntask:\n  - boolq\n")
    (few / "quoted.yaml").write_text('"group": "quoted"\n')
    (few / "README.md").write_text("task: none\n")
    assert {"arc_easy", "arc_challenge", "boolq", "quoted"} <= set(names_of_lm_eval())
    assert "none" not in names_of_lm_eval()


@pytest.mark.parametrize(
    ("names", "is_mentioned"),
    [([], False), (["arc_easy"], True), (["no_such_task", "ai2_arc"], True), (["no_such_task"], False)],
)
def test_a_name_in_no_file_is_unknown(names, is_mentioned, few):
    assert lm_eval_mentions(names) == is_mentioned


def test_what_is_wrong_with_names_is_a_sentence_each(few):
    """A mistyped one, and one whose data is on the hub; the bundled one between them is right."""
    with pytest.raises(ConfigError) as caught:
        tasks.load_tasks(["arc_chalenge", "bundled", "boolq"])
    mistyped, offline = caught.value.problems
    assert mistyped.endswith("did you mean arc_challenge?") and "'arc_chalenge'" in mistyped
    assert "of the task boolq can't be loaded (no network, and not in the local cache" in offline


def test_the_index_is_not_built_for_an_unknown_name(few, monkeypatch):
    folders: list[Path] = []
    build = TaskIndex.build
    monkeypatch.setattr(TaskIndex, "build", staticmethod(lambda paths: folders.extend(paths) or build(paths)))
    with pytest.raises(ConfigError, match="did you mean arc_challenge"):
        tasks.load_tasks(["arc_chalenge"])
    assert folders and few not in folders
    with pytest.raises(ConfigError, match="did you mean arc_challenge"):
        tasks.load_tasks(["arc_challeng"])  # which its files mention, as a part of a name
    assert few in folders


@pytest.mark.long
def test_the_files_mention_every_name_of_lm_evals_index():
    with pytest.raises(ConfigError, match="of the task boolq can't be loaded"):
        tasks.load_tasks(["boolq"])
    index = {str(name) for name in TaskManager().task_index}
    text = b"\n".join(text for _, text in task_names._texts())
    assert [name for name in index if name.encode() not in text] == []
    listed = set(names_of_lm_eval())
    assert len(listed & index) > 0.9 * len(index) and len(listed - index) <= 1
