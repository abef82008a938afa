"""Numbers of README and docs stand in files that commands wrote."""

import itertools
import json
import re
from pathlib import Path

import pandas
import pytest

from benchmarks import examples, side_by_side
from tests.helpers.generated_pages import cells, marked_cells
from tests.helpers.pages import name_of, pages

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "results" / "data"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table_after(text, head):
    """The cells of the Markdown table that begins with a line, without the line below it."""
    lines = text[text.index(head) :].splitlines()
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [cells(line) for line in list(table)[2:]]


ROWS = table_after(README, "| 50% of the block weights removed |")
LABELS = {  # of the README's rows: the method and compensation of a run
    "CVR + energy (the paper's default)": "cvr + energy",
    "Wanda": "wanda",
    "Wanda + least squares": "wanda + least_squares",
    "SparseGPT": "sparsegpt",
    "ALPS": "alps",
    "`best_first_order`": "admm, rows",
    "`best`": "admm",
}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_readmes_numbers_are_those_of_the_records(row):
    runs = pandas.read_csv(DATA / "front.csv")
    sampled = runs["method.statistics"] == "rows"
    run = runs[runs["method"].where(~sampled, runs["method"] + ", rows") == LABELS[row[0]]].iloc[0]
    assert [float(value) for value in row[2:]] == [
        round(run["perplexity bundled"], 2),
        round(run["KL bundled"], 3),
        round(run["seconds of pruning"]),
    ]


def test_the_readme_says_when_the_numbers_were_made_and_of_which_commit():
    runs = pandas.read_csv(DATA / "front.csv")
    assert len(set(runs["commit"])) == len({date[:10] for date in runs["date (UTC)"]}) == 1
    assert runs["commit"][0] in README and runs["date (UTC)"][0][:10] in README
    assert "local changes" not in runs["commit"][0]


def test_the_readme_can_be_finished():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 120]


def test_the_picture_is_there():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)


def test_the_comparison_with_llm_compressor_is_that_of_its_file():
    result = json.loads((ROOT / "benchmarks" / "results" / "side_by_side.json").read_text(encoding="utf-8"))
    page = (DATA.parent / "speed.md").read_text(encoding="utf-8")
    assert side_by_side.table(result) in page
    assert f"{result['machine']['date']}, commit {result['machine']['commit']}" in page


PAGES = [*(DATA.parent / f"{name}.md" for name in ("studies", "held-out", "paper-tables", "comparison"))]
PAGES.append(ROOT / "docs" / "guide" / "patterns-and-allocations.md")
OLDER = {"allocations", "sparser", "swaps"}  # made before the files had dates and commits
OTHERS = {"agreement", "front", "reference"}  # files that are shown otherwise
STUDIES = sorted({file.stem for file in DATA.glob("*.csv")} - OTHERS)
PLACE = ["section", "row", "column"]


def page_of_study(name):
    """The page that shows a study's tables."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    (text,) = [text for text in texts if f"<!-- data: {name} -->" in text]
    return text


def tables_of_study(name):
    """Each value of a study's tables in the docs: section, row, column, text."""
    text = page_of_study(name).partition(f"<!-- data: {name} -->")[2]
    text = text[: re.search(r"\n[^|\n]*bundled scale; ", text).start()]
    parts = re.split(r"\n(?=\*\*)", text)
    for part in parts[1:] or parts:
        section = part.partition("\n")[0].strip("*") if part.startswith("**") else ""
        head, _, *rows = [marked_cells(line) for line in part.splitlines() if line.startswith("|")]
        for row in rows:
            yield from ((section, row[0], *own) for own in zip(head[1:], row[1:], strict=True))


def values_of_study(name):
    """The same cells as its file has them."""
    data = pandas.read_csv(DATA / f"{name}.csv", dtype=dict.fromkeys([*PLACE, "threads"], str))
    return data.fillna({"section": ""}).set_index(PLACE)


@pytest.mark.parametrize("study", STUDIES)
def test_the_studies_numbers_are_those_of_their_files(study):
    data = values_of_study(study)
    shown = list(tables_of_study(study))
    assert len(shown) == len(data)
    for section, row, column, text in shown:
        cell = data.loc[(section, row.replace("\\|", "|"), column)]
        number = re.search(r"\d+\.(\d+)", text)
        digits = len(number[1])
        assert number.group() == f"{cell['mean']:.{digits}f}", (section, row, column)
        deviation = re.search(r"± ([\d.]+)", text)
        assert (deviation[1] if deviation else "nan") == f"{cell['deviation']:.{digits}f}", (section, row, column)
        assert ("≈" in text) == (cell["low"] <= 0 <= cell["high"]), (section, row, column)


@pytest.mark.parametrize("study", [own for own in STUDIES if own not in OLDER])
def test_pages_say_when_the_studies_were_made_and_from_which_commit(study):
    data, page = values_of_study(study), page_of_study(study)
    assert not data["commit"].str.contains("local changes").any()
    for told in ("date", "commit"):
        assert all(own in page for own in set(", ".join(data[told]).split(", ")))


EXAMPLES = json.loads(examples.RESULT.read_text(encoding="utf-8"))["examples"]
PRINTED = [
    pytest.param(page.read_text(encoding="utf-8"), *match, id=f"{name_of(page)}, {match[0]}")
    for page in pages()
    for match in re.findall(
        r"<!-- printed: (.+?) -->\n```text\n(.*?)\n```", page.read_text(encoding="utf-8"), re.DOTALL
    )
]


@pytest.mark.parametrize(("page", "name", "block"), PRINTED)
def test_what_pages_show_was_printed(page, name, block):
    example = EXAMPLES[name]
    lines = iter(example["printed"])
    missing = [own for own in block.splitlines() if own != "…" and own not in lines]  # in this order, some left out
    assert not missing
    assert example["commands"] == examples.EXAMPLES[name]
    assert example["machine"]["date"] in page and "dirty" not in example["machine"]["commit"]
    assert all(own in re.sub(r"\s*\\\n\s*", " ", page) for own in example["commands"])


def test_every_example_is_shown():
    assert {own.values[1] for own in PRINTED} == set(examples.EXAMPLES)
