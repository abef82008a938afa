"""Footnotes of published values in Markdown, LaTeX and CSV, and the page of all of them."""

import csv

from statprune.analysis.provenance_text import footnotes
from statprune.analysis.published_text import published_markdown
from statprune.analysis.table_text import to_csv, to_latex, to_markdown
from statprune.analysis.tables import Built, Entry
from statprune.config.table_files import TABLES, table_names
from statprune.config.table_spec import load_table

MODELS = ["Llama-2-7B", "Llama-3-8B"]
PAGE = TABLES.parents[1] / "docs" / "results" / "published.md"


def built(name="ppl"):
    """A table with made-up numbers, a hundredth above the published ones."""
    table = load_table(name, "paper", MODELS)
    entries = {place: Entry(value + 0.01, None, 1, None, value) for place, value in table.published.items()}
    return Built(table, entries, "Made up.")


def test_markdown_has_a_column_of_marks_beside_the_distances():
    lines = to_markdown(built()).splitlines()
    assert "|  | Llama-2-7B | − published | source | Llama-3-8B | − published | source |" in lines
    assert "| Dense | 5.13 | +0.01 | a | 6.15 | +0.01 | b |" in lines
    assert "| Magnitude | 14.91 | +0.01 | c | 310.69 | +0.01 | c |" in lines


def test_markdown_says_what_the_marks_stand_for():
    lines = to_markdown(built()).splitlines()
    assert "- a: Wanda's repository, README; windows of 4096 tokens." in lines
    assert "- c: the paper alone, of the sources that were searched; its sequence length is not stated." in lines
    assert any(line.startswith("- d: the value of Mistral-7B and of Llama-3-8B in DenoiseRotator") for line in lines)


def test_latex_has_footnotes_below_the_tabular():
    text = to_latex(built("zero_shot"))
    assert r"Dense & 59.72 & +0.01\textsuperscript{a} & 72.73 & +0.01\textsuperscript{b} \\" in text
    tabular, notes = text.split(r"\end{tabular}")
    assert r"\textsuperscript{b} DenoiseRotator (arXiv 2505.23049), Tables 1 and 2; denoise\_rotator5 (PIQA" in notes
    assert "source" not in tabular.replace("sources", "") and notes.count(r"\par") == 1 + 3  # a, b, c


def test_csv_has_source_protocol_and_other_values_of_each_cell():
    rows = list(csv.DictReader(to_csv(built()).splitlines()))
    (wanda,) = [row for row in rows if (row["section"], row["row"], row["column"]) == ("50%", "Wanda", "Llama-3-8B")]
    assert wanda["published_source"] == "DenoiseRotator (arXiv 2505.23049), Tables 1 and 2"
    assert wanda["published_protocol"] == "windows of 2048 tokens in its code"
    assert wanda["published_elsewhere"] == "9.87 in ALPS (arXiv 2406.07831); 10.82 in RIA's repository, README"


def test_a_table_without_published_values_has_no_marks():
    table = load_table("ppl", "bundled")
    place = ("50%", "Wanda", "SmolLM2-135M")
    made_up = Built(table, {place: Entry(5.0, None, 1, None, None)}, "")
    assert footnotes(table, made_up.entries).marks == {}
    assert "source" not in to_markdown(made_up) and "footnotesize" not in to_latex(made_up)


def test_the_page_of_published_values_is_what_the_command_prints():
    """Make it anew with ``statprune tables all --scale paper --published > docs/results/published.md``."""
    assert (
        PAGE.read_text(encoding="utf-8")
        == published_markdown(load_table(name, "paper") for name in table_names()) + "\n"
    )


def test_the_page_counts_each_cell_once():
    lines = published_markdown([load_table("ppl", "paper")]).splitlines()
    (count,) = [line for line in lines if line.startswith("Of ")]
    assert count.startswith("Of 144 cells 63 have a counterpart elsewhere") and "35 of these" in count
    assert sum("Dense / Llama-2-7B" in line for line in lines) == 1


def test_a_page_of_nothing_is_empty():
    assert published_markdown([load_table("ppl", "bundled")]) == ""
