"""Places that can't be written to are told before a verb works, and trying them leaves nothing."""

from pathlib import Path

import pytest

from statprune.cli.outputs import check_file, check_folder
from statprune.errors import StatpruneError
from tests.helpers.verbs import verb


@pytest.mark.parametrize("folder", ["/proc/x", "/dev/null", "/dev/null/x"])
@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "MODEL", "--picture"),
        ("bench", "MODEL", "--picture"),
        ("report", "MODEL", "--figures"),
        ("tables", "ppl", "--output"),
    ],
    ids=lambda command: command[0],
)
def test_a_verb_refuses_a_folder_that_cant_be_written_before_it_looks_at_anything_else(command, folder, capsys):
    assert verb(*command, folder) == 1
    error = capsys.readouterr().err.strip()
    assert f"{folder} can't be written (" in error and "give another folder" in error and "\n" not in error


@pytest.mark.parametrize("path", ["/proc/x/page.html", "/dev/null/page.html", "/proc"])
def test_a_file_that_cant_be_written_is_refused(path, tmp_path, capsys):
    assert verb("report", tmp_path, "--csv", path) == 1
    assert f"--csv {path} can't be written (" in capsys.readouterr().err
    assert verb("report", tmp_path, "-o", path) == 1
    assert f"{path} can't be written (" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["compress", "decompress"])
def test_a_copy_is_refused_where_it_cant_be_written_before_the_model_is_read(name, capsys):
    assert verb(name, "MODEL", "/proc/x/copy") == 1
    assert capsys.readouterr().err.startswith("statprune: /proc/x can't be written (")
    assert verb(name, "owner/model", "/proc") == 1
    assert "/proc exists already; give a folder that does not" in capsys.readouterr().err


def test_trying_a_new_folder_leaves_nothing(tmp_path):
    check_folder(tmp_path / "deep" / "new")
    check_file(tmp_path / "other" / "page.html")
    check_folder(None)
    check_file(None)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_may_be_written_again(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    check_file(path)
    check_file(Path("/dev/null"))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(StatpruneError, match="it is a folder"):
        check_file(tmp_path)
