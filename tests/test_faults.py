"""Every row of docs/faults.md names a test that exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("| fault |", "| --- |"))]


def test_every_fault_names_its_test():
    assert [row for row in rows() if not TEST.search(row)] == []


def test_every_named_test_exists():
    missing = []
    for path, name in TEST.findall(PAGE.read_text(encoding="utf-8")):
        file = ROOT / path
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else iter(())
        if name not in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []
