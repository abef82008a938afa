"""What a table consists of: its layout becomes cells, and what is wrong with it is said in sentences."""

import csv
from itertools import product

import pytest
import yaml

from statprune.config.table_files import TABLES, table_names
from statprune.config.table_spec import load_table, place_name
from statprune.errors import ConfigError

PUBLISHED = list(csv.DictReader((TABLES / "published.csv").open()))
NAMES_AND_SCALES = list(product(table_names(), ("bundled", "paper")))


def problems_of(act):
    """The sentences of the ConfigError that is raised."""
    with pytest.raises(ConfigError) as caught:
        act()
    return caught.value.problems


@pytest.mark.parametrize("name,scale", NAMES_AND_SCALES)
def test_every_table_has_cells_at_every_place(name, scale):
    table = load_table(name, scale)
    assert {cell.place for cell in table.cells} == set(product(table.sections, table.rows, table.columns))


@pytest.mark.parametrize("name,scale", NAMES_AND_SCALES)
def test_every_cell_of_a_table_has_a_seed_of_its_own(name, scale):
    cells = load_table(name, scale).cells
    assert len({(cell.place, cell.seed) for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", table_names())
def test_nothing_is_compared_with_the_paper_at_bundled_scale(name):
    assert not load_table(name, "bundled").published


def test_the_tables_take_each_published_value():
    used = [value for name in table_names() for value in load_table(name, "paper").published.values()]
    assert len(used) > len(PUBLISHED)  # a dense row stands in three sections
    assert sorted(set(used)) == sorted({float(row["value"]) for row in PUBLISHED})


@pytest.mark.parametrize(
    "override", ["model.path=/models/gemma", "model.path='org/gemma'", 'model.path="/a b/gemma"', "model=gemma"]
)
@pytest.mark.parametrize("name", ["ppl", "sparsity"])  # models are columns, and sections
def test_a_model_of_the_overrides_stands_under_its_own_name(name, override):
    table = load_table(name, "bundled", overrides=["seed=1", override])
    own, labels = load_table(name, "bundled"), {*table.sections, *table.columns}
    assert labels == {"gemma" if label == "SmolLM2-135M" else label for label in (*own.sections, *own.columns)}
    assert len(labels) == len({*own.sections, *own.columns})


def test_overrides_that_make_several_models_one_are_refused():
    (problem,) = problems_of(lambda: load_table("ppl", "paper", overrides=["model.path=/models/gemma"]))
    assert "the table ppl has 9 models" in problem and "/models/gemma" in problem and "--models" in problem
    copy = load_table("ppl", "paper", ["Llama-2-7B"], ["model.path=/models/llama"])
    assert copy.columns == ["llama"] and copy.published == {
        (section, row, "llama"): value
        for (section, row, _), value in load_table("ppl", "paper", ["Llama-2-7B"]).published.items()
    }


@pytest.mark.parametrize(
    "name,place,value",
    [
        ("ppl", ("2:4", "Wanda + EC", "Llama-3-70B"), 54.02),
        ("ppl", ("50%", "Magnitude", "Qwen2.5-72B"), 734.04),
        ("ppl", ("4:8", "Dense", "Llama-2-7B"), 5.12),
        ("sparsity", ("Llama-2-13B", "SparseGPT", "70%"), 18.04),
        ("ladder", ("", "+ EC of columns", "Llama-2-7B"), 6.21),
        ("runtime", ("", "CVR + EC", "Llama-2-13B"), 5.35),
    ],
)
def test_a_published_value_stands_where_the_paper_has_it(name, place, value):
    assert load_table(name, "paper").published[place] == value


def test_a_table_without_published_values_has_none():
    assert load_table("calibration_size", "paper").published == {}


def test_a_place_is_named_by_its_labels():
    assert place_name(("", "Wanda", "SmolLM2-135M")) == "Wanda / SmolLM2-135M"


def test_planned_counts_the_cells_of_a_place():
    table = load_table("ladder", "bundled")
    assert table.planned == {("", row, "SmolLM2-135M"): 3 for row in table.rows}


DESCRIBED = {"title": "t", "metric": "perplexity", "rows": {"A": {"overrides": []}}}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"rows": {"A": {"overides": []}}}, "has the unknown key overides in row 'A'"),
        ({"metric": "speed"}, "metric 'speed'; choose one of perplexity"),
        ({"columns": {48: []}}, "has 48 in columns, which YAML reads as no text"),
        ({"reference": "B"}, "has reference 'B', which is none of A"),
        ({"colums": {}}, "has the unknown key colums"),
        ({"sections": {"s": []}, "columns": {"c": []}}, "sections and columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(change, message, tmp_path):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(DESCRIBED | change))
    problems = problems_of(lambda: load_table(str(tmp_path / "t.yaml"), "paper"))
    assert any(message in problem for problem in problems)


def test_everything_that_is_wrong_with_a_table_is_said_at_once(tmp_path):
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(DESCRIBED | {"colums": {}, "metric": "speed"}))
    assert len(problems_of(lambda: load_table(str(tmp_path / "t.yaml"), "paper"))) == 2


@pytest.mark.parametrize("text,message", [("[", "can't be read"), ("- a", "holds no keys")])
def test_a_file_that_is_no_table_is_a_problem(text, message, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    (problem,) = problems_of(lambda: load_table(str(tmp_path / "t.yaml"), "bundled"))
    assert message in problem


@pytest.mark.parametrize(
    "name,scale,models,message",
    [
        ("plp", "bundled", None, "the table plp is unknown; did you mean ppl?"),
        ("nothing", "bundled", None, f"choose from {', '.join(table_names())}, or name a YAML file"),
        ("ppl", "big", None, "there is no scale big; choose one of bundled, paper"),
        ("ppl", "bundled", ["GPT"], "'GPT' is no model of scale bundled; choose from SmolLM2-135M"),
    ],
)
def test_a_table_scale_or_model_that_does_not_exist_is_a_problem(name, scale, models, message):
    (problem,) = problems_of(lambda: load_table(name, scale, models))
    assert message in problem


# -- a part of a table --


@pytest.fixture
def paper():
    """A table of four rows, two columns and three seeds, with published values."""
    return load_table("ladder", "paper")


def test_a_part_has_the_rows_that_are_named_in_the_tables_order(paper):
    part = paper.only(rows=["+ CVR", "Wanda"])
    assert part.rows == ["Wanda", "+ CVR"]
    assert part.cells == [cell for cell in paper.cells if cell.place[1] in ("Wanda", "+ CVR")]


def test_a_part_has_the_columns_that_are_named(paper):
    part = paper.only(columns=["Llama-2-13B"])
    assert part.columns == ["Llama-2-13B"]
    assert part.cells == [cell for cell in paper.cells if cell.place[2] == "Llama-2-13B"]


def test_a_part_has_the_sections_that_are_named_among_the_columns():
    table = load_table("ppl", "paper")
    part = table.only(columns=["2:4", "Llama-2-7B"])
    assert (part.sections, part.columns) == (["2:4"], ["Llama-2-7B"])
    assert part.cells == [cell for cell in table.cells if cell.place[0] == "2:4" and cell.place[2] == "Llama-2-7B"]


def test_a_part_of_named_sections_has_all_columns():
    table = load_table("ppl", "paper")
    part = table.only(columns=["2:4", "4:8"])
    assert part.sections == [label for label in table.sections if label in ("2:4", "4:8")]
    assert part.columns == table.columns
    assert part.cells == [cell for cell in table.cells if cell.place[0] in ("2:4", "4:8")]


def test_a_part_has_the_seeds_that_are_named(paper):
    part = paper.only(seeds=[2, 0])
    assert part.cells == [cell for cell in paper.cells if cell.seed in (0, 2)]
    assert (part.rows, part.columns) == (paper.rows, paper.columns)


def test_filters_of_a_part_go_together(paper):
    part = paper.only(["Wanda"], ["Llama-2-7B"], [1])
    assert [(cell.place, cell.seed) for cell in part.cells] == [(("", "Wanda", "Llama-2-7B"), 1)]


def test_a_part_has_the_published_values_of_its_places(paper):
    part = paper.only(["Wanda", "+ CVR"], ["Llama-2-7B"])
    places = [("", "Wanda", "Llama-2-7B"), ("", "+ CVR", "Llama-2-7B")]
    assert part.published == {place: paper.published[place] for place in places}


def test_a_part_without_filters_is_the_whole_table(paper):
    assert paper.only() == paper


def test_cells_whose_column_sets_their_seed_stay_in_a_part():
    seeds = load_table("seeds", "bundled")
    assert all(cell.seed is None for cell in seeds.cells)
    part = seeds.only(columns=seeds.columns[:1])
    assert part.cells == [cell for cell in seeds.cells if cell.place[2] == seeds.columns[0]]


@pytest.mark.parametrize(
    "filters,problem",
    [
        ({"rows": ["Wando"]}, "the table ladder has no row 'Wando'; did you mean 'Wanda'?"),
        ({"columns": ["Llama-2-7"]}, "the table ladder has no column 'Llama-2-7'; did you mean 'Llama-2-7B'?"),
        ({"columns": ["GPT"]}, "the table ladder has no column 'GPT'; choose from Llama-2-7B, Llama-2-13B"),
        ({"seeds": [7]}, "the table ladder has no seed 7; choose from 0, 1, 2"),
    ],
)
def test_a_label_that_the_table_does_not_have_is_a_problem_with_a_suggestion(filters, problem, paper):
    assert problems_of(lambda: paper.only(**filters)) == [problem]


def test_all_labels_that_the_table_does_not_have_are_problems_at_once(paper):
    problems = problems_of(lambda: paper.only(["Wando", "Wanda"], ["GPT"], [7, 0]))
    assert len(problems) == 3


def test_a_table_can_show_another_number_of_the_same_runs(paper):
    other = paper.measured_by("kl")
    assert (other.name, other.metric, other.cells) == (f"{paper.name}_kl", "kl", paper.cells)
    assert other.published == {} and paper.measured_by(paper.metric) is paper
