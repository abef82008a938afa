"""Files that are whole or not there."""

import json
import math

import pytest

from statprune.system import files
from statprune.system.files import finite, replacing, replacing_folder, write_json


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.nan, 1.0, (math.inf,)]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0, [None]]}


def test_finite_values_stay_as_they_are():
    values = {"a": [1, 2.5, "x", None, True], "b": {"c": []}}
    assert finite(values) == values


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_folder_is_there_as_a_whole_or_not_at_all(error, tmp_path):
    folder = tmp_path / "deep" / "x"
    with pytest.raises(error), replacing_folder(folder) as temporary:
        (temporary / "half").write_text("half")
        raise error
    assert list(folder.parent.iterdir()) == []
    with replacing_folder(folder) as temporary:
        (temporary / "whole").write_text("whole")
        assert not folder.exists()
    assert list(folder.parent.iterdir()) == [folder] and (folder / "whole").read_text() == "whole"


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    folder = tmp_path / "x"
    with pytest.raises(FileExistsError, match="by now"), replacing_folder(folder):
        folder.mkdir()
    with pytest.raises(FileExistsError, match="already"), replacing_folder(folder):
        pass
    assert list(tmp_path.iterdir()) == [folder] and list(folder.iterdir()) == []


def test_what_a_killed_process_left_beside_a_folder_goes_and_what_a_living_one_makes_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "start_time", lambda number: None if number == 1 else 1.0)
    left, made, other = (tmp_path / f".{name}" for name in (f"x.{files.tag()}-1", f"y.{files.tag()}-2", "z.0a1b2c3d-1"))
    for path in (left, made, other):
        path.mkdir()
        (path / "half").write_text("half")
    with replacing_folder(tmp_path / "x"):
        pass
    assert set(tmp_path.iterdir()) == {made, other, tmp_path / "x"}
