"""``statprune compare``: runs side by side, or a sentence that says why not."""

import json
import shutil

import pytest

from statprune.runs.store import read_record
from tests.helpers.command import statprune
from tests.helpers.old_records import copy_schema_1
from tests.helpers.verbs import verb


@pytest.fixture
def runs(tmp_path):
    return copy_schema_1(tmp_path / "runs")


def test_runs_are_compared_in_the_shell(runs):
    done = statprune("compare", "plain", "zero_shot", cwd=runs)
    assert done.returncode == 0 and "difference to run 1" in done.stdout, done.stderr


def test_facts_are_printed_as_json(runs, capsys):
    assert verb("compare", runs / "plain", runs / "mixture", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sparsity"] == [read_record(runs / name).sparsity.achieved for name in ("plain", "mixture")]


@pytest.mark.parametrize("names", [["plain"], ["plain", "plain"], ["plain", "nowhere"], ["plain", "pending"]])
def test_what_cant_be_compared_is_one_sentence(names, runs, capsys):
    assert verb("compare", *(runs / name for name in names)) == 1
    error = capsys.readouterr().err
    assert error.startswith("statprune: ") and error.count("\n") == 1


def test_a_folder_with_an_equals_sign_is_read_like_any_other(runs, capsys):
    shutil.copytree(runs / "plain", runs / "run_s0_alpha=0.25_1a2b3c4d")
    assert verb("compare", runs / "plain", runs / "run_s0_alpha=0.25_1a2b3c4d") == 0
    assert "+0.0000 (+0.0000 to +0.0000)" in capsys.readouterr().out
