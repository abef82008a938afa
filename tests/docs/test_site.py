"""The site opens from disk: it is built without a warning, and nothing in it asks a network for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import urlparse

import pytest

from tests.helpers.pages import ROOT


class Resources(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        if tag != "a":
            self.found += [values[name] for name in ("src", "href", "srcset", "data") if name in values]


@pytest.mark.long
def test_the_site_is_built_and_asks_no_network(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr  # --quiet would hide warnings from --strict, too
    told = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO ")]
    assert told == []
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        outside = {own for own in resources.found if urlparse(own).scheme in ("http", "https") or own.startswith("//")}
        assert outside == set(), page
        for own in resources.found:
            path = urlparse(own).path
            assert not path or page.name == "404.html" or (page.parent / path).exists(), f"{page}: {own}"
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import", sheet.read_text(encoding="utf-8")), sheet
    index = (tmp_path / "site" / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = {") and "Column-variance reweighting" in index
