"""What the house keeps to: the packages that are installed, what ``statprune`` exports, how long things are."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import statprune
from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import METHODS, method_names
from statprune.data import sources
from statprune.pruning.allocation import ALLOCATIONS

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
    block, _ = (node for node in tree.body if isinstance(node, ast.If))
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


def names_of_choices() -> set[str]:
    """Names of our methods, compensations, allocations and sources, and of the classes that they are."""
    classes = [
        registry.get(name).__name__ for registry in (METHODS, COMPENSATIONS, ALLOCATIONS) for name in registry.names()
    ]
    return {*method_names(), *COMPENSATIONS.names(), *ALLOCATIONS.names(), *sources.SOURCES.names(), *classes}


def conditions(tree: ast.AST) -> set[str]:
    """Texts that are compared or matched, and classes that ``isinstance`` asks for."""
    found = set()
    for node in ast.walk(tree):
        is_question = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        if isinstance(node, ast.Compare | ast.MatchValue | ast.MatchClass) or is_question:
            found |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return {str(name) for name in found}


def test_no_choice_of_a_registry_is_named_in_a_condition_elsewhere():
    own = {ROOT / "statprune" / "core" / f"{name}.py" for name in ("scores", "sparsegpt", "compensation", "moments")}
    own.add(ROOT / "statprune" / "pruning" / "allocation.py")
    own |= {ROOT / "statprune" / "data" / f"{name}.py" for name in ("bundled", "text_file", "hub_datasets")}
    names = names_of_choices() - {"text"}  # which variables are called, too
    found = {
        str(path): names & conditions(ast.parse(path.read_text(encoding="utf-8")))
        for path in modules("statprune", "analysis", "experiments")
        if path not in own
    }
    assert {path: named for path, named in found.items() if named} == {}


def test_no_test_module_imports_another():
    imports = re.compile(r"^(?:from|import) tests(?!\.helpers\b).*$", re.MULTILINE)
    assert {str(path): found for path in modules("tests") if (found := imports.findall(path.read_text()))} == {}
