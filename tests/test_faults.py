"""Every row of docs/faults.md and every page of docs/decisions/ names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
DECISIONS = [path for path in sorted((ROOT / "docs" / "decisions").glob("*.md")) if path.stem != "index"]
PARTS = ["Context", "Decision", "Considered", "Consequences", "Where", "Held by"]
MOST_LINES = 60
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PLACE = re.compile(r"`((?:statprune|analysis|experiments|benchmarks)/[\w/.]+)`")


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("| fault |", "| --- |"))]


def test_every_fault_names_its_test():
    assert [row for row in rows() if not TEST.search(row)] == []


@pytest.mark.parametrize("page", [PAGE, *DECISIONS], ids=lambda page: page.stem)
def test_every_named_test_exists(page):
    missing = []
    for path, name in TEST.findall(page.read_text(encoding="utf-8")):
        file = ROOT / path
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else iter(())
        if name not in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_parts_its_place_and_its_test(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS and len(text.splitlines()) <= MOST_LINES
    places = PLACE.findall(text)
    assert places and [place for place in places if not (ROOT / place).exists()] == []
    assert TEST.search(text)


def test_every_decision_is_listed():
    text = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", text)) == {page.stem for page in DECISIONS}
