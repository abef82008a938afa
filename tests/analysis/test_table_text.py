"""Tables as Markdown, LaTeX and CSV: what is best, how far it is from what was published, and how it is escaped."""

import csv
import math
from dataclasses import replace

from statprune.analysis.table_text import CSV_COLUMNS, Ranks, ranks, to_csv, to_latex, to_markdown, write_tables
from statprune.analysis.tables import Built, Entry, Made
from statprune.analysis.uncertainty import Interval
from statprune.config.table_spec import load_table

MODEL = "Llama-2-7B"
APART, WITH_ZERO = Interval(-0.1, -0.2, -0.05), Interval(-0.1, -0.2, 0.05)


def entry(mean: float, deviation: float | None = None, interval: Interval | None = None) -> Entry:
    return Entry(mean, deviation, 1 if deviation is None else 3, interval, None)


def ladder(*entries: Entry | None) -> Built:
    """The table ladder with made-up numbers, one for each row, beside its published values."""
    table = load_table("ladder", "paper", [MODEL])
    places = {("", row, MODEL): entry for row, entry in zip(table.rows, entries, strict=True)}
    places = {
        place: replace(entry, published=table.published.get(place))
        for place, entry in places.items()
        if entry is not None
    }
    return Built(table, places, "Made up.")


def test_the_best_is_bold():
    lines = to_markdown(ladder(entry(6.8), entry(6.3), entry(6.2), None)).splitlines()
    assert "| + EC of columns | **6.20** | -0.01 | b |" in lines


def test_the_second_is_underlined():
    lines = to_markdown(ladder(entry(6.8), entry(6.3), entry(6.2), None)).splitlines()
    assert "| + CVR | <u>6.30</u> | -0.02 | b |" in lines


def test_two_that_share_the_first_place_leave_no_second():
    lines = to_markdown(ladder(entry(6.5), entry(6.3), entry(6.2), entry(6.2))).splitlines()
    assert "| + CVR | 6.30 | -0.02 | b |" in lines
    assert sum("**6.20**" in line for line in lines) == 2 and not any("<u>" in line for line in lines)


def test_a_distance_from_the_published_value_stands_in_its_own_column():
    lines = to_markdown(ladder(entry(6.5), entry(6.3), entry(6.2), entry(6.2))).splitlines()
    assert "| Wanda | 6.50 | +0.08 | a |" in lines


def test_deviations_and_intervals_that_hold_zero_stand_beside_the_mean():
    built = ladder(entry(6.5), entry(6.3, 0.012, WITH_ZERO), entry(6.2, 0.1, APART), entry(6.2, 0.1))
    lines = to_markdown(built).splitlines()
    assert "| Wanda | 6.50 | +0.08 | a |" in lines
    assert "| + CVR | 6.30 ± 0.01 ≈ | -0.02 | b |" in lines
    assert "| + EC of columns | **6.20** ± 0.10 | -0.01 | b |" in lines


def test_a_note_explains_the_intervals_that_hold_zero():
    text = to_markdown(ladder(entry(6.5), entry(6.3, 0.012, WITH_ZERO), entry(6.2), entry(6.2)))
    assert "≈: the 95% interval (paired bootstrap over windows) of the difference in log-perplexity to Wanda" in text
    assert "≈" not in to_markdown(ladder(entry(6.5), entry(6.3, 0.012, APART), entry(6.2), entry(6.2)))


def test_a_distance_beyond_the_tolerance_is_marked_and_explained():
    lines = to_markdown(ladder(entry(6.8), entry(6.3), entry(6.2), None)).splitlines()
    assert "| Wanda | 6.80 | +0.38 ! | a |" in lines and "!: more than 2% from the published value." in lines


def test_cells_that_were_not_run_are_counted():
    lines = to_markdown(ladder(entry(6.8), entry(6.3), entry(6.2), None)).splitlines()
    assert "1 of 4 cells were not run yet." in lines


def test_a_table_without_runs_says_so():
    table = load_table("ppl", "bundled")
    text = to_markdown(Built(table, {}, "Nothing was run yet."))
    assert "Nothing was run yet." in text and "18 of 18 cells were not run yet." in text


def test_seeds_that_were_not_run_are_counted_by_place():
    table = load_table("calibration_size", "bundled")
    whole = {cell.place: Entry(5.0, 0.1, 3, None, None) for cell in table.cells}
    part = whole | {("SmolLM2-135M", "Wanda", "8"): Entry(5.0, 0.1, 2, None, None)}
    text = to_markdown(Built(table, part, ""))
    assert "SmolLM2-135M / Wanda / 8: 2 of 3 seeds; the others were not run yet." in text.splitlines()
    assert "were not run yet" not in to_markdown(Built(table, whole, ""))


def test_latex_has_booktabs():
    text = to_latex(ladder(entry(6.5), entry(6.3, 0.02), entry(6.2), None))
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_latex_marks_the_best_and_the_second():
    text = to_latex(ladder(entry(6.5), entry(6.3, 0.02), entry(6.2), None))
    assert (
        r"+ EC of columns & \textbf{6.20} & -0.01\textsuperscript{b} \\" in text
        and r"\underline{6.30} $\pm$ 0.02" in text
    )


def test_latex_has_a_line_for_each_section():
    place = ("50%", "Wanda", "SmolLM2-135M")
    text = to_latex(Built(load_table("ppl", "bundled"), {place: entry(5.0)}, ""))
    assert r"\multicolumn{2}{l}{50\%}" in text


def test_a_lone_value_is_not_bold():
    place = ("50%", "Wanda", "SmolLM2-135M")
    built = Built(load_table("ppl", "bundled"), {place: entry(5.0)}, "")
    assert r"\textbf" not in to_latex(built) and "**5.00**" not in to_markdown(built)


def test_latex_says_labels_as_they_are():
    table = load_table("ladder", "bundled")
    labels = {name: f"|W|^2 σ {{x}} $ \\ ~ {name}" for name in table.rows}
    entries = {("", label, "SmolLM2-135M"): entry(5.0 + number) for number, label in enumerate(labels.values())}
    text = to_latex(Built(replace(table, rows=list(labels.values())), entries, ""))
    escaped = r"\textbar{}W\textbar{}\textasciicircum{}2 $\sigma$ \{x\} \$ \textbackslash{} \textasciitilde{} Wanda"
    assert escaped + r" & \textbf{5.00} \\" in text and text.isascii()


ACCURACIES = {"Dense": 83.0, "Wanda": 73.0, "CVR + EC": 72.0, "Magnitude": 33.0}


def accuracies() -> Built:
    table = load_table("zero_shot", "bundled")
    return Built(table, {("50%", row, "SmolLM2-135M"): entry(value) for row, value in ACCURACIES.items()}, "")


def test_a_higher_accuracy_is_better_and_the_dense_row_does_not_compete():
    assert ranks(accuracies(), "50%", "SmolLM2-135M") == Ranks({"Wanda"}, {"CVR + EC"})


def test_csv_has_a_line_for_each_cell_in_the_tables_order():
    lines = to_csv(accuracies()).splitlines()
    assert lines[0].split(",") == list(CSV_COLUMNS) and len(lines) == 1 + len(ACCURACIES)
    assert lines[1] == "50%,Dense,SmolLM2-135M,83.0,,1" + "," * (len(CSV_COLUMNS) - 6)


def test_csv_has_everything_that_is_measured_of_a_cell():
    lines = to_csv(ladder(entry(6.5), entry(6.3, 0.012, WITH_ZERO), None, None)).splitlines()
    (_, cell) = csv.DictReader(lines)
    assert cell == {
        **{"section": "", "row": "+ CVR", "column": MODEL, "mean": "6.3", "deviation": "0.012", "seeds": "3"},
        **{"difference": "-0.1", "low": "-0.2", "high": "0.05", "difference_unit": "log-perplexity (nats)"},
        **{"published": "6.32", "delta": str(6.3 - 6.32), "published_elsewhere": ""},
        **{"published_source": "the paper alone, of the sources that were searched"},
        **{"published_protocol": "its sequence length is not stated"},
        **{"date": "", "commit": "", "device": "", "threads": ""},
    }


def test_csv_says_when_where_and_from_which_code_a_cell_was_made():
    made = Made("2026-11-28", "75b65ac", "cpu (x86_64)", "1")
    (_, cell) = csv.DictReader(to_csv(ladder(entry(6.5), replace(entry(6.3), made=made), None, None)).splitlines())
    assert {key: cell[key] for key in ("date", "commit", "device", "threads")} == vars(made)


def test_a_value_that_is_not_finite_is_written_in_words():
    lines = to_markdown(ladder(entry(42.6), entry(math.nan), entry(37.4), entry(50.0))).splitlines()
    assert "| + CVR | not finite |  |  |" in lines


def test_a_value_that_is_not_finite_does_not_compete():
    lines = to_markdown(ladder(entry(42.6), entry(math.nan), entry(37.4), entry(50.0))).splitlines()
    assert any("**37.40**" in line for line in lines) and any("<u>42.60</u>" in line for line in lines)


def test_a_table_is_written_in_three_formats(tmp_path):
    built = accuracies()
    paths = write_tables(built, tmp_path / "new")
    assert [path.name for path in paths] == ["zero_shot.md", "zero_shot.tex", "zero_shot.csv"]
    assert [path.read_text() for path in paths] == [to_markdown(built), to_latex(built), to_csv(built)]
