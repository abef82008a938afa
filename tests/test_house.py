"""What the house keeps to: the packages that are installed, what ``statprune`` exports, how long things are."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import statprune

ROOT = Path(__file__).parents[1]
SOURCES = ("statprune", "analysis", "experiments", "benchmarks")
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_UNTYPED = 350, 60, 25


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def installed_folders() -> set[Path]:
    """The folders of the wheel's packages, as pyproject.toml lists them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        tool = tomllib.load(file)["tool"]["setuptools"]
    elsewhere = tool["package-dir"]
    return {ROOT / elsewhere.get(name, _below_a_named_package(name, elsewhere)) for name in tool["packages"]}


def _below_a_named_package(name: str, elsewhere: dict[str, str]) -> str:
    for package, folder in elsewhere.items():
        if name.startswith(f"{package}."):
            return folder + name.removeprefix(package).replace(".", "/")
    return name.replace(".", "/")


def test_every_package_is_installed():
    packages = {path.parent for path in modules("statprune", "analysis", "experiments") if path.name == "__init__.py"}
    assert packages <= installed_folders()


@pytest.mark.parametrize("name", statprune.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(statprune, name) is not None


def test_type_checkers_and_python_see_the_same_exports():
    tree = ast.parse(Path(statprune.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(statprune.__all__)


def test_importing_statprune_imports_nothing_slow():
    code = "import sys, statprune; print(*{'torch', 'transformers', 'hydra', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_files_have_one_idea():
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*SOURCES, "tests")}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_functions_fit_on_a_screen():
    lengths = {
        f"{path}:{node.name}": node.end_lineno - node.lineno + 1
        for path in modules(*SOURCES, "tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


def test_untyped_dictionaries_are_few():
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules("statprune"))
    assert len(re.findall(r"dict\[str, Any\]", text)) <= MOST_UNTYPED


def test_no_test_module_imports_another():
    imports = re.compile(r"^(?:from|import) tests(?!\.helpers\b).*$", re.MULTILINE)
    assert {str(path): found for path in modules("tests") if (found := imports.findall(path.read_text()))} == {}
