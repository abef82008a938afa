"""Absolute paths of what a run read and wrote."""

from statprune.config.schema import RunConfig
from statprune.runs.paths import absolute_paths
from tests.helpers.command import composed


def config(*overrides: str) -> RunConfig:
    return composed("evaluation=full", *overrides)


def test_typed_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("tiny", "tasks", "cache", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "words.txt").write_text("words")
    typed = ["model.path=./tiny", "calibration=text", "calibration.path='~/words.txt'", "cache=cache"]
    typed += ["evaluation.datasets=[text]", "evaluation.path=tasks/../words.txt", "evaluation.tasks=[bundled,./tasks]"]
    assert absolute_paths(config(*typed), tmp_path / "run") == {
        "folder": str(tmp_path / "run"),
        "model.path": str(tmp_path / "tiny"),
        "calibration.path": str(tmp_path / "words.txt"),
        "evaluation.path": str(tmp_path / "words.txt"),
        "evaluation.tasks.1": str(tmp_path / "tasks"),
        "cache": str(tmp_path / "cache"),
    }


def test_what_is_not_on_this_machine_has_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = config("model.path=somebody/model", "cache=missing", "evaluation.tasks=[bundled]")
    assert absolute_paths(job, tmp_path / "missing") == {}


def test_a_file_of_a_package_is_found(tmp_path):
    path = absolute_paths(config("evaluation.tasks=[bundled]"), tmp_path)["model.path"]
    assert path.startswith("/") and path.endswith(".gguf")


def test_a_links_target_is_recorded(tmp_path, tiny_folder):
    (tmp_path / "link").symlink_to(tiny_folder)
    job = config(f"model.path={tmp_path / 'link'}", "evaluation.tasks=[bundled]")
    assert absolute_paths(job, tmp_path)["model.path"] == str(tiny_folder.resolve())


def test_paths_are_no_part_of_the_hash(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = config("model.path=tiny", "evaluation.tasks=[bundled]")
    before = here.hash()
    (tmp_path / "tiny").symlink_to(tiny_folder)
    assert "model.path" in absolute_paths(here, tmp_path) and here.hash() == before
