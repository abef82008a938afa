"""README and the pages of docs/: their fenced blocks, links and headings."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(.*)$")
MARK = re.compile(r"^ *<!-- test: (compose|long|skip .+) -->$")
FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml|json|txt))$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(`+).*?\1")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: number of its first line in the page.
        language: what its fence names.
        text: without the fences.
        mark: how tests treat it: compose, long, "skip REASON", or nothing.
    """

    line: int
    language: str
    text: str
    mark: str = ""

    @property
    def file(self) -> str | None:
        """The file that the block is, where its first line is a comment that names one."""
        match = FILE.match(self.text.partition("\n")[0])
        return match[1] if match else None


def pages() -> list[Path]:
    """README and the pages of the site."""
    excluded = {DOCS / name.strip("/ ") for name in site().get("exclude_docs", "").splitlines()}
    return [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if page not in excluded)]


def make_targets() -> set[str]:
    """What can be made."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags for Python objects say nothing of the pages."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python", lambda loader, suffix, node: None)


def site() -> dict:
    """What mkdocs.yml says."""
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def name_of(page: Path) -> str:
    """A page's name in tests."""
    return str(page.relative_to(ROOT))


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        if opening := FENCE.match(lines[number]):
            indent, language = opening.groups()
            end = next(own for own in range(number + 1, len(lines)) if lines[own] == f"{indent}```")
            before = MARK.match(lines[number - 1]) if number else None
            body = "".join(f"{line.removeprefix(indent)}\n" for line in lines[number + 1 : end])
            found.append(Block(number + 2, language.strip(), body, before[1] if before else ""))
            number = end
        number += 1
    return found


def prose_of(text: str) -> str:
    """A page without its fenced blocks and code."""
    lines, is_code = [], False
    for line in text.splitlines():
        if FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            lines.append(CODE.sub("", line))
    return "\n".join(lines)


def links_of(text: str) -> list[str]:
    """Targets of a page's links to other files and headings."""
    return [
        target for target in LINK.findall(prose_of(text)) if "://" not in target and not target.startswith("mailto:")
    ]


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown's table of contents makes them."""
    seen: set[str] = set()
    for title in _titles(text):
        anchor = base = _slug(title)
        number = 0
        while anchor in seen:
            number += 1
            anchor = f"{base}_{number}"
        seen.add(anchor)
    return seen


def _titles(text: str) -> Iterator[str]:
    is_code = False
    for line in text.splitlines():
        if FENCE.match(line):
            is_code = not is_code
        elif not is_code and (match := re.match(r"#+ (.+)$", line)):
            yield match[1]


def _slug(title: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_text).strip().lower())
