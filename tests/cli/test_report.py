"""``statprune report``: one page about a folder of runs, or a sentence that says why not."""

import pandas
import pytest

from statprune.cli.report import EXAMPLE
from tests.helpers.command import statprune
from tests.helpers.old_records import FINISHED, PENDING, copy_schema_1, schema_1_values
from tests.helpers.verbs import verb


@pytest.fixture
def runs(tmp_path):
    """Three runs that wrote schema 1, and one that is pending."""
    return copy_schema_1(tmp_path / "runs")


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit) as ended:
        verb("report", "--help")
    assert ended.value.code == 0 and EXAMPLE in capsys.readouterr().out


def test_the_page_is_written_beside_the_runs(runs):
    folder = runs / "plain"
    done = statprune("report", str(folder), cwd=runs)
    assert done.returncode == 0 and done.stdout.strip() == str(folder / "report.html"), done.stderr
    assert "1 finished, 0 left out" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_written_where_it_is_wanted(runs, tmp_path, capsys):
    path = tmp_path / "new" / "page.html"
    assert verb("report", runs / "plain", "-o", path) == 0
    assert capsys.readouterr().out.strip() == str(path) and path.is_file()
    assert not (runs / "plain" / "report.html").exists()


def test_the_figures_of_the_page_are_written_as_files(runs, tmp_path):
    assert verb("report", runs, "--figures", tmp_path / "figures") == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert len(names) == 2 * page.count("<img ") > 0
    assert {name.rpartition(".")[0] for name in names if name.endswith(".png")} == {
        name.rpartition(".")[0] for name in names if name.endswith(".pdf")
    }


def test_the_table_of_the_page_is_written_as_a_file(runs, tmp_path):
    assert verb("report", runs, "--csv", tmp_path / "runs.csv") == 0
    table = pandas.read_csv(tmp_path / "runs.csv")
    for name in FINISHED:
        value = schema_1_values(name)["metrics"]["perplexity"]["bundled"]["pruned"]
        assert f"{value:.4f}" in {f"{number:.4f}" for number in table["perplexity bundled"]}
    assert {"commit", "device", "threads", "seconds of pruning"} <= set(table)


def test_records_of_schema_1_are_on_the_page_with_their_numbers(runs):
    assert verb("report", runs) == 0
    text = (runs / "report.html").read_text(encoding="utf-8")
    for name in FINISHED:
        assert f"{schema_1_values(name)['metrics']['perplexity']['bundled']['pruned']:.4f}" in text


def test_a_pending_record_is_named_and_left_out(runs):
    assert verb("report", runs) == 0
    text = (runs / "report.html").read_text(encoding="utf-8")
    assert "3 finished, 1 left out" in text and f"{PENDING}/result.json lacks its zero-shot evaluation" in text


def test_a_folder_without_runs_is_a_sentence(tmp_path, capsys):
    assert verb("report", tmp_path / "nowhere") == 1
    assert "nowhere holds no finished run; give the folder of an experiment" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_a_page_that_cant_be_written_is_a_sentence(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert verb("report", runs, "-o", tmp_path / "file" / "page.html") == 1
    error = capsys.readouterr().err
    assert "page.html can't be written (" in error and "give another path" in error


def test_a_folder_has_to_be_named(capsys):
    assert verb("report") == 1
    assert "the following arguments are required: folder; statprune report --help" in capsys.readouterr().err
