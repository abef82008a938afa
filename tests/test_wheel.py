"""The wheel, installed without the repository: a new environment that borrows this one's other packages."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import statprune

ROOT = Path(__file__).parents[1]
SOURCES = ("statprune", "conf", "analysis", "experiments", "pyproject.toml", "README.md", "LICENSE")
SCRIPT = """
import statprune
from statprune import evaluate, load_model, prune

loaded = load_model()
result = prune(loaded, "wanda", 0.5, compensation=statprune.Energy())
measured = evaluate(loaded, "bundled")
print(f"{result.sparsity:.2f}", measured.to_frame())
"""
WRONG = """
statprune.prun(loaded)
prune(loaded, "wanda", 0.5, windows=3)
"""
# of others' packages only PyTorch is read, whose decorators have types that ours need
WITHOUT_OTHERS = """
[mypy]
strict = true
[mypy-transformers.*,pandas.*,numpy.*,omegaconf.*,hydra.*,datasets.*,lm_eval.*,pydantic.*,rich.*,wandb.*]
follow_imports = skip
"""
TABLE = """
title: Two methods
metric: perplexity
reference: Wanda
rows:
  Wanda: [method=wanda, compensation=none]
  Magnitude: [method=magnitude, compensation=none]
"""

pytestmark = pytest.mark.slow


class Environment:
    """A virtual environment that has the wheel, and a folder to work in."""

    def __init__(self, folder: Path, work: Path):
        self.binaries, self.work = folder / "bin", work

    def run(self, *command: str) -> str:
        """Run a command of the environment in the folder; returns what it prints."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        name, *arguments = command
        done = subprocess.run(
            [str(self.binaries / name), *arguments],
            cwd=self.work,
            env=clean,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    folder = tmp_path_factory.mktemp("wheel")
    # built from a copy: setuptools leaves a build folder behind, and would take what an older one holds
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(build, check=True, timeout=120)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=120)
    own = next((folder / "venv").glob("lib/python*/site-packages"))
    # a folder named in a .pth is searched, but its .pth files are not read, which install this checkout
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "--python", str(folder / "venv/bin/python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    (folder / "work").mkdir()
    return Environment(folder / "venv", folder / "work")


def common(model: Path) -> list[str]:
    return [
        f"model.path={model}",
        "calibration.samples=2",
        "calibration.seq_len=16",
        "evaluation.max_windows=2",
        "evaluation.seq_len=16",
        "tracking=disabled",
        "cache=null",
    ]


def test_what_is_imported_is_the_wheel(environment):
    code = (
        "import statprune.analysis, statprune.experiments; print(statprune.__path__[0], statprune.analysis.__path__[0])"
    )
    for path in environment.run("python", "-c", code).split():
        assert path.startswith(str(environment.binaries.parent))


@pytest.fixture(scope="module")
def printed(environment, tiny_folder) -> str:
    return environment.run("statprune", *common(tiny_folder), "name=one")


def test_the_wheels_command_prunes_a_model(environment, printed):
    (record,) = environment.work.glob("outputs/one/*/result.json")
    assert f"{json.loads(record.read_text())['perplexity']['bundled']['pruned']:.4f}" in printed


@pytest.mark.long
def test_the_wheels_command_sweeps(environment, tiny_folder):
    environment.run("statprune", "-m", *common(tiny_folder), "name=two", "method=wanda,magnitude")
    assert len(list(environment.work.glob("outputs/two/*/result.json"))) == 2


@pytest.mark.long
def test_the_wheels_tables_are_planned_run_and_built(environment, tiny_folder):
    (environment.work / "own.yaml").write_text(TABLE)
    assert "missing" in environment.run("statprune", "tables", "ppl", "--dry-run")
    printed = environment.run("statprune", "tables", "own.yaml", "--overrides", *common(tiny_folder))
    assert "| Magnitude |" in printed
    assert {path.name for path in environment.work.glob("outputs/tables/bundled/own.*")} >= {
        "own.md",
        "own.csv",
        "own.pdf",
    }


def test_the_wheels_report_is_a_page(environment, printed):
    environment.run("statprune", "report", "outputs/one", "-o", "page.html")
    assert "bundled" in (environment.work / "page.html").read_text()


def test_the_wheel_makes_a_package_of_ones_own(environment):
    environment.run("statprune", "init", "my-pruning")
    assert "my_pruning.scores:centred_wanda" in (environment.work / "my-pruning/pyproject.toml").read_text()


def test_the_wheels_version_is_the_projects(environment):
    assert environment.run("statprune", "--version") == "statprune 0.2.0\n"


def test_the_wheel_has_licence_and_type_marker(environment):
    (packages,) = environment.binaries.parent.glob("lib/python*/site-packages")
    (info,) = packages.glob("statprune-*.dist-info")
    assert (info / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0\n" in (info / "METADATA").read_text()
    assert (packages / "statprune" / "py.typed").exists()


@pytest.fixture(scope="module")
def complaints(environment) -> dict[str, list[str]]:
    """What mypy says of users' scripts beside the installed wheel, by script."""
    names = "\n".join(f"reveal_type(statprune.{name})" for name in statprune.__all__)
    scripts = {"right.py": SCRIPT, "wrong.py": SCRIPT + WRONG, "names.py": f"import statprune\n{names}\n"}
    for name, text in {**scripts, "mypy.ini": WITHOUT_OTHERS}.items():
        (environment.work / name).write_text(text)
    mypy = [sys.executable, "-m", "mypy", "--python-executable", str(environment.binaries / "python")]
    command = [*mypy, "--config-file", "mypy.ini", "--cache-dir", "types", *scripts]
    done = subprocess.run(command, cwd=environment.work, capture_output=True, text=True, timeout=600)
    return {name: [line for line in done.stdout.splitlines() if line.startswith(f"{name}:")] for name in scripts}


@pytest.mark.long
def test_a_users_script_is_checked_against_the_wheels_types(complaints):
    assert complaints["right.py"] == []
    name, argument = complaints["wrong.py"]
    assert 'Module has no attribute "prun"' in name and 'Argument "windows" to "prune"' in argument


@pytest.mark.long
def test_every_public_name_has_a_type(complaints):
    types = [line.split("Revealed type is ")[1].strip('"') for line in complaints["names.py"]]
    assert len(types) == len(statprune.__all__)
    hidden = {name for name, own in zip(statprune.__all__, types, strict=True) if own in ("Any", "builtins.object")}
    assert hidden == set()
