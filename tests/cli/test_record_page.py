"""The page about the record tells of every field, with a unit where it has one, and of every column that is written."""

from dataclasses import fields, is_dataclass
from types import SimpleNamespace

import pytest

from statprune.cli.record_page import record_page, type_of
from statprune.pruning.report import JSON_KEYS, MatrixReport
from statprune.runs import record as records
from statprune.runs.columns import DocumentRow, WindowRow
from statprune.system.docstrings import attributes
from tests.helpers.verbs import verb

COUNTS = ("bytes", "tokens", "windows", "seconds", "weights")


@pytest.fixture(scope="module")
def page() -> str:
    return record_page()


def test_the_verb_prints_it(page, capsys):
    assert verb("options", "--record-markdown") == 0
    assert capsys.readouterr().out == page
    assert verb("options", "method", "--record-markdown") == 1
    assert "leave the group out" in capsys.readouterr().err


def described_classes() -> list[type]:
    own = [value for value in vars(records).values() if is_dataclass(value)]
    return [*own, MatrixReport, WindowRow, DocumentRow]


@pytest.mark.parametrize("cls", described_classes(), ids=lambda cls: cls.__name__)
def test_every_field_has_a_meaning(cls, page):
    told = attributes(cls)
    for item in fields(cls):
        assert told[item.name].meaning, f"{cls.__name__}.{item.name}"
        if item.name.rpartition("_")[2] in COUNTS and item.type == "int":
            assert told[item.name].unit, f"{cls.__name__}.{item.name} counts something: give its unit"
        if item.name != "diagnostics":
            assert f"| `{JSON_KEYS.get(item.name, item.name) if cls is MatrixReport else item.name}` |" in page


def test_types_read_as_people_write_them():
    hints = SimpleNamespace(**records.RunRecord.__annotations__)
    assert type_of(hints.fidelity) == "mapping of [FidelityResult](#fidelityresult) or null"
    assert type_of(hints.config) == "mapping" and type_of(list[float | None]) == "list of (float or null)"
    assert type_of(bool | None) == "true or false or null"
