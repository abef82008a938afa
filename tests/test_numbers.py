"""Numbers of README and docs stand in files that commands wrote."""

import itertools
import json
import re
from pathlib import Path

import pandas
import pytest

from benchmarks import side_by_side
from tests.helpers.generated_pages import cells

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


PAGES = ("studies.md", "held-out.md", "paper-tables.md", "comparison.md")
STUDIES = "\n".join((DATA.parent / page).read_text(encoding="utf-8") for page in PAGES)
OTHERS = {"front"}  # files that other pages show


def tables_of_study(name):
    """Each value of a study's tables in the docs: section, row, column, text."""
    text = STUDIES[STUDIES.index(f"<!-- data: {name} -->") :]
    text = text[: re.search(r"\n[^|\n]*bundled scale; ", text).start()]
    parts = re.split(r"\n(?=\*\*)", text)
    for part in parts[1:] or parts:
        section = part.partition("\n")[0].strip("*") if part.startswith("**") else ""
        head, _, *rows = [cells(line) for line in part.splitlines() if line.startswith("|")]
        for row in rows:
            yield from ((section, row[0], *own) for own in zip(head[1:], row[1:], strict=True))


@pytest.mark.parametrize("study", sorted({file.stem for file in DATA.glob("*.csv")} - OTHERS))
def test_the_studies_numbers_are_those_of_their_files(study):
    place = ["section", "row", "column"]
    data = pandas.read_csv(DATA / f"{study}.csv", dtype=dict.fromkeys(place, str)).fillna({"section": ""})
    data = data.set_index(place)
    shown = list(tables_of_study(study))
    assert len(shown) == len(data)
    for section, row, column, text in shown:
        mean = data.loc[(section, row.replace("\\|", "|"), column), "mean"]
        number = re.search(r"\d+\.(\d+)", text)
        assert number.group() == f"{mean:.{len(number[1])}f}", (section, row, column)
