"""Numbers of README and docs stand in files that commands wrote."""

import itertools
import re
from pathlib import Path

import pandas
import pytest

from tests.helpers.generated_pages import cells

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "results" / "data"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table_after(text, head):
    """The cells of the Markdown table that begins with a line, without the line below it."""
    lines = text[text.index(head) :].splitlines()
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [cells(line) for line in list(table)[2:]]


ROWS = table_after(README, "| 50% of the weights removed |")
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
