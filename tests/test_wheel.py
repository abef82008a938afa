"""The wheel, installed without the repository: a new environment that borrows this one's other packages."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("statprune", "conf", "analysis", "experiments", "pyproject.toml", "README.md")
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
    assert environment.run("statprune", "--version") == "statprune 0.1.0\n"
