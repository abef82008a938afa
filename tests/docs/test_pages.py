"""Pages as such: blocks have a language, links lead somewhere, every page is in the site, and what is made is made."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import statprune
from statprune import testing
from statprune.config.reference import Reference
from tests.helpers.generated_pages import DOCS, described_choices, filled, generated_pages
from tests.helpers.pages import ROOT, anchors_of, blocks_of, links_of, make_targets, name_of, pages, prose_of, site

LANGUAGES = {"bash", "console", "csv", "json", "python", "sh", "text", "toml", "yaml"}
STAGES = ("method", "refinement", "compensation", "allocation")
NOTHING = {"dense", "none", "uniform"}  # choices that do nothing have nothing to tell
PAGES = pytest.mark.parametrize("page", pages(), ids=name_of)


def files_in(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list):
        for item in nav:
            yield from files_in(item)
    elif isinstance(nav, dict):
        for item in nav.values():
            yield from files_in(item)


@PAGES
def test_blocks_have_a_language(page):
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    assert {f"line {block.line}: {block.language!r}" for block in blocks if block.language not in LANGUAGES} == set()


@PAGES
def test_blocks_are_fenced(page):
    text = page.read_text(encoding="utf-8")
    indented = re.findall(r"^\n {4}(?!\s|[-*\d]).+$", prose_of(text), re.MULTILINE)
    assert not indented or "```" not in text, "an indented block: fence it, and name its language"


@PAGES
def test_marks_stand_before_a_block(page):
    text = page.read_text(encoding="utf-8")
    marks = re.findall(r"^ *<!-- ?test:.*$", text, re.MULTILINE)
    assert len(marks) == sum(bool(block.mark) for block in blocks_of(text)), f"one of {marks} marks nothing"


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists() or not anchor or target.suffix != ".md":
        return target.exists()
    return anchor in anchors_of(target.read_text(encoding="utf-8"))


@PAGES
def test_links_lead_to_a_file_and_a_heading(page):
    links = links_of(page.read_text(encoding="utf-8"))
    assert [link for link in links if not leads_somewhere(page, link)] == []


def test_every_page_is_in_the_navigation():
    own = {str(page.relative_to(DOCS)) for page in pages() if page.is_relative_to(DOCS)}
    listed = list(files_in(site()["nav"]))
    assert own == set(listed) and len(listed) == len(own)


def test_what_is_made_is_what_the_code_says():
    made = list(generated_pages())
    old = {name_of(path) for path, text in made if not path.exists() or path.read_text(encoding="utf-8") != text}
    assert old == set(), "run make pages"


def test_a_marked_part_is_replaced_alone():
    text = (
        "a\n\n<!-- options: method=ria -->\nold\n<!-- end -->\n\nb\n\n<!-- options: method=wanda -->\n<!-- end -->\nc\n"
    )
    made = filled(text)
    assert "| `method.power` | float | `0.5` |" in made and "old" not in made
    assert made.startswith("a\n") and "\nb\n" in made and made.endswith("<!-- end -->\nc\n") and filled(made) == made


def test_every_choice_of_every_stage_has_a_page():
    reference = Reference()
    names = {
        f"{stage}={choice.name}"
        for stage in STAGES
        for choice in reference.group(f"sparsity.{stage}" if stage == "allocation" else stage).choices
        if not choice.origin and choice.name not in NOTHING
    }
    listed = [DOCS / name for name in files_in(site()["nav"]) if name.startswith("methods/")]
    described = [name for page in listed for name in described_choices(page.read_text(encoding="utf-8"))]
    assert set(described) == names and len(described) == len(names)


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("*.md")), ids=name_of)
def test_pages_of_methods_are_short(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60 or page.stem.endswith("-measured")


def test_everything_exported_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: statprune\.(\S+)$", page, re.MULTILINE)
    assert sorted(documented) == sorted([*statprune.__all__, *(f"testing.{name}" for name in testing.__all__)])


def test_make_targets_that_pages_name_exist():
    targets = make_targets()
    named = {
        (name_of(page), target)
        for page in pages()
        for target in re.findall(r"`make ([a-z][\w-]*)", page.read_text(encoding="utf-8"))
    }
    assert {own for own in named if own[1] not in targets} == set()


def test_files_that_pages_name_exist():
    folders = "statprune|conf|analysis|experiments|examples|tests|benchmarks|docs"
    path = re.compile(rf"`((?:{folders})/[\w./-]+\.(?:py|md|yaml|csv|ipynb|sh|txt))`")
    named = {(name_of(page), own) for page in pages() for own in path.findall(page.read_text(encoding="utf-8"))}
    assert {own for own in named if not Path(ROOT, own[1]).exists()} == set()
