"""The scripts of examples/: a score of one's own, from Python and from the command, and a sweep with its table."""

import importlib.util
from pathlib import Path

import pytest

from statprune import get_method, load_model, prune
from statprune.core.score import SCORES
from statprune.errors import ChoiceError
from statprune.runs.store import read_record
from tests.helpers.command import statprune

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ["calibration.samples=2", "calibration.seq_len=32", "evaluation.max_windows=1", "tracking=disabled"]


def imported(name: str):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plugin_score(monkeypatch):
    monkeypatch.setattr(SCORES, "_registered", dict(SCORES._registered))
    return imported("plugin_score")


def test_the_score_of_the_example_prunes_from_python(plugin_score, tiny_folder):
    assert prune(load_model(str(tiny_folder)), plugin_score.spread, "2:4").sparsity == 0.5


def test_the_options_of_the_example_are_checked(plugin_score):
    with pytest.raises(ChoiceError, match=r"method\.power=-1\.0 is negative"):
        get_method("spread", power=-1.0)


def test_the_example_compares_its_score_with_wandas(plugin_score, tiny_folder, capsys):
    plugin_score.main(str(tiny_folder), samples=2, seq_len=32)
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("wanda: mean relative") and second.startswith("spread, SpreadOptions(power=1.0)")


@pytest.mark.long
def test_the_command_takes_the_score_of_the_example(tiny_folder, tmp_path):
    plugin = f"plugins=[{EXAMPLES / 'plugin_score.py'}]"
    overrides = [plugin, "method=spread", "method.power=0.5", f"model.path={tiny_folder}", *SMALL]
    done = statprune(*overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "default").iterdir()
    assert read_record(folder).config["method"] == {"name": "spread", "power": 0.5}


@pytest.mark.long
def test_the_sweep_of_the_example_ends_in_a_table(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = imported("sweep")
    monkeypatch.setattr(sweep, "GRID", ["method=wanda,cvr", "sparsity=unstructured,2_4"])
    monkeypatch.setattr(sweep, "SMALL", SMALL)
    done = {}

    def run(command, check):
        done["sweep"] = statprune(*command[3:], cwd=tmp_path)

    monkeypatch.setattr(sweep.subprocess, "run", run)
    frame = sweep.table(sweep.sweep([f"model.path={tiny_folder}"]))
    assert done["sweep"].returncode == 0, done["sweep"].stderr
    assert frame.index.tolist() == ["cvr + energy", "wanda + none"] and frame.columns.tolist() == ["2:4", "50%"]
    assert (frame > 1).all(axis=None)
