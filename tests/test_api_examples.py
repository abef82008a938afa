"""Examples run as they stand: in docstrings, docs/guide/python.md, README, the notebook, and the scripts."""

import doctest
import inspect
import json
import re
from pathlib import Path

import matplotlib
import pytest

import statprune
from statprune.model import loading

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
WITH_EXAMPLES = [
    *("prune", "evaluate", "save", "statistics", "get_method", "load_model", "save_model", "find_blocks"),
    *("calibration_windows", "evaluation_windows", "perplexity", "window_losses", "load_compressed"),
]


@pytest.fixture
def tiny_default(tiny_folder, tmp_path, monkeypatch):
    """``load_model()`` opens the tiny model, and what is saved is saved in a folder of the test's."""
    original = loading.load_model

    def load_model(path=str(tiny_folder), **options):
        return original(path, **options)

    load_model.__doc__ = original.__doc__
    monkeypatch.setattr(loading, "load_model", load_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    matplotlib.use("Agg")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_docstring_run(name, tiny_default):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(statprune, name), name, module=False, globs={})
    assert example.examples
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert not failed


def test_functions_of_the_interface_have_examples():
    own = [
        name for name in statprune.__all__ if inspect.isfunction(value := getattr(statprune, name)) and value.__doc__
    ]
    without = {name for name in own if ">>>" not in getattr(statprune, name).__doc__}
    assert not without & set(WITH_EXAMPLES)


def test_the_guide_runs(tiny_default, capsys):
    namespace: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide" / "python.md").read_text(), re.DOTALL):
        exec(code, namespace)
    assert "50% of the pruned matrices are zeros" in capsys.readouterr().out


def test_the_readmes_python_example_runs(tiny_default, capsys, tmp_path):
    exec(re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1], {})
    assert "perplexity" in capsys.readouterr().out and (tmp_path / "pruned" / "config.json").exists()


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs(tiny_default, tiny_folder, tmp_path):
    constants, *cells = ["".join(cell["source"]) for cell in code_cells(EXAMPLES / "prune_and_compare.ipynb")]
    namespace: dict = {}
    exec(constants, namespace)
    small = {"MODEL": str(tiny_folder), "SAMPLES": 2, "SEQ_LEN": 32, "EVALUATED": 2, "FOLDER": str(tmp_path / "saved")}
    assert small.keys() < namespace.keys()
    namespace |= small
    for code in cells:
        exec(code, namespace)
    assert (tmp_path / "saved" / "model.safetensors").exists()


def test_the_notebook_is_shown_with_its_outputs_and_without_errors():
    cells = code_cells(EXAMPLES / "prune_and_compare.ipynb")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
