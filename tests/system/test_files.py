"""Files that are whole or not there."""

import json
import math

import pytest

from statprune.system.files import finite, replacing, write_json


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
