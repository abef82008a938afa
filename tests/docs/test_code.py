"""The Python code of the site runs as it stands, block after block of a page, on a tiny model."""

import pytest

from tests.helpers.pages import blocks_of, name_of, pages

ELSEWHERE = {"extending"}  # folders whose code is files of a user's: tests/test_extending.py


def code_of(page):
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    return [block for block in blocks if block.language == "python" and not block.mark.startswith("skip")]


OWN = [page for page in pages() if page.parent.name not in ELSEWHERE and code_of(page)]


@pytest.mark.parametrize("page", OWN, ids=name_of)
def test_the_code_of_a_page(page, page_folder, tiny_default):
    namespace: dict = {"__name__": "__main__"}
    for block in code_of(page):
        lines = "\n" * (block.line - 1)  # so that an error names the page's line
        exec(compile(lines + block.text, name_of(page), "exec"), namespace)
