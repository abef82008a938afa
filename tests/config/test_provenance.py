"""Where the digits of published values stand: counted and looked up in the project's own files."""

import csv
from decimal import Decimal

import pytest

from statprune.config.provenance import METRIC_OF, provenance_of
from statprune.config.table_files import TABLES, read_yaml
from statprune.config.table_spec import load_table
from statprune.evaluation.task_sets import TASK_SETS


def rows_of(name):
    with (TABLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


PUBLISHED, ELSEWHERE = rows_of("published.csv"), rows_of("elsewhere.csv")
SOURCES = read_yaml(TABLES / "sources.yaml")["sources"]
DENSE = ("llama2_7b", "llama2_13b", "llama2_70b")


def cell_of(row):
    return tuple(row[key] for key in ("metric", "model", "sparsity", "method"))


def first_read(row):
    """Whether a value was among those that were read first: without the appendix, and Llama-2's dense values."""
    return row["source"] != "denoise_rotator_appendix" and not (row["method"] == "Dense" and row["model"] in DENSE)


def counts(elsewhere):
    """Cells with a counterpart, pairs of cell and source, and cells that have the same digits somewhere."""
    pairs = [
        (number, other) for number, row in enumerate(PUBLISHED) for other in elsewhere if cell_of(row) == cell_of(other)
    ]
    same = {
        number
        for number, other in pairs
        if Decimal(other["value"]).quantize(Decimal("0.01")) == Decimal(PUBLISHED[number]["value"])
    }
    return len({number for number, _ in pairs}), len(pairs), len(same)


def test_43_of_320_cells_stand_in_earlier_sources_to_the_last_digit():
    """METHODS.md counts 91 counterparts: they are pairs of a cell and a source, of 83 cells."""
    assert len(PUBLISHED) == 320
    assert counts([row for row in ELSEWHERE if first_read(row)]) == (83, 91, 43)


def test_with_the_appendix_and_llama_2s_dense_values_there_are_53():
    found = [provenance_of(row) for row in PUBLISHED]
    cells = sum(bool(known.same or known.differing) for known in found)
    pairs = sum(len(known.same) + len(known.differing) for known in found)
    assert (cells, pairs, sum(bool(known.same) for known in found)) == counts(ELSEWHERE) == (122, 149, 53)


def provenance(table, model, sparsity, method):
    (row,) = [row for row in PUBLISHED if row["table"] == table and cell_of(row)[1:] == (model, sparsity, method)]
    return provenance_of(row)


@pytest.mark.parametrize(
    "cell,origin,protocol",
    [
        (("1", "llama2_70b", "50%", "Wanda"), "Wanda's repository, README", "windows of 4096 tokens"),
        (("1", "llama3_8b", "0", "Dense"), "DenoiseRotator (arXiv 2505.23049), Tables 1 and 2", "2048 tokens"),
        (("2", "qwen2.5_72b", "0", "Dense"), "DenoiseRotator (arXiv 2505.23049), Tables 1 and 2", "acc_norm"),
        (("1", "llama2_7b", "50%", "CVR+EC"), "the paper alone, of the sources that were searched", "not stated"),
        (
            ("1", "llama2_7b", "2:4", "Magnitude"),
            "the value of Mistral-7B and of Llama-3-8B in DenoiseRotator (arXiv 2505.23049), Tables 1 and 2",
            "2048 tokens",
        ),
        (
            ("1", "llama2_13b", "2:4", "Magnitude"),
            "the value of Llama-3-70B in DenoiseRotator (arXiv 2505.23049), Tables 1 and 2",
            "2048 tokens",
        ),
    ],
)
def test_a_cell_has_the_source_and_protocol_of_its_digits(cell, origin, protocol):
    found = provenance(*cell)
    assert found.origin == origin and protocol in found.protocol


def test_only_two_cells_have_another_models_digits():
    found = [provenance_of(row) for row in PUBLISHED]
    assert [known.cell[1:] for known in found if known.other_models] == [
        ("llama2_7b", "2:4", "Magnitude"),
        ("llama2_13b", "2:4", "Magnitude"),
    ]


def test_other_values_of_the_same_cell_are_told():
    known = provenance("1", "llama2_7b", "50%", "Wanda")
    assert known.other_values.startswith("6.42 in Wanda's repository, README; 6.93 in ALPS") and not known.same


def test_a_value_with_more_decimals_is_compared_as_it_is_rounded():
    assert provenance("1", "qwen2.5_32b", "4:8", "Wanda").same[0].value == "7.073"  # the paper has 7.07
    assert not provenance("1", "qwen2.5_72b", "4:8", "Wanda").same  # 5.939 there, and 5.93 in the paper


def test_every_value_is_of_a_source_that_says_how_it_was_measured():
    assert {row["source"] for row in ELSEWHERE} <= SOURCES.keys()
    assert all(SOURCES[row["source"]].get(METRIC_OF[row["metric"]]) for row in ELSEWHERE)
    assert len({tuple(row.values())[:5] for row in ELSEWHERE}) == len(ELSEWHERE)


def test_task_sets_that_sources_name_are_there():
    named = [
        source["zero_shot"].split(" ")[0] for key, source in SOURCES.items() if "zero_shot" in source and key != "paper"
    ]
    assert named and set(named) <= TASK_SETS.keys()


def override(cell, key):
    (value,) = [text.partition("=")[2] for text in cell.overrides if text.startswith(f"{key}=")]
    return value


def test_zero_shot_runs_the_set_that_a_columns_dense_digits_came_from():
    table = load_table("zero_shot", "paper")
    for cell in table.cells:
        dense = table.provenance["50%", "Dense", cell.place[2]]
        assert override(cell, "evaluation.tasks") == f"[{dense.protocol.split(' ')[0]}]"


@pytest.mark.parametrize("name", ["ppl", "ladder", "sparsity"])
def test_perplexities_are_measured_at_the_length_that_a_models_dense_digits_came_from(name):
    dense = load_table("ppl", "paper").provenance
    for cell in load_table(name, "paper").cells:
        model = cell.place[2] if name != "sparsity" else cell.place[0]
        assert f"windows of {override(cell, 'evaluation.seq_len')} tokens" in dense["50%", "Dense", model].protocol


def test_a_table_knows_the_source_of_each_published_value():
    table = load_table("ppl", "paper")
    assert table.provenance.keys() == table.published.keys()
    part = table.only(["Wanda"], ["Llama-2-7B"])
    assert part.provenance.keys() == part.published.keys()
