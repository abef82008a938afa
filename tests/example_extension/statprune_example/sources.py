"""A text source: documents in two parts that have nothing in common."""

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import statprune

MODULES = {
    "calibration": ("argparse", "difflib", "doctest", "inspect", "pathlib", "statistics", "subprocess"),
    "evaluation": ("fractions", "random", "shutil", "tarfile", "textwrap", "zipfile"),
}
SHORTEST = 80  # characters of a docstring; shorter ones say little


class Docstrings(statprune.Source):
    """Docstrings of Python's standard library, which every installation has."""

    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """A document for each module of the part.

        Args:
            part: calibration or evaluation.
            path: None; the source reads no file.
        """
        return ["\n\n".join(_docstrings(name)) for name in MODULES[part]]


def _docstrings(name: str) -> list[str]:
    """What a module says of itself, its classes and its functions, in the order of its file."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None  # a module of the standard library that is a file
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    return [text for text in texts if len(text) >= SHORTEST]
