"""``statprune tables --published``: the paper's values and where else they stand, without a run."""

from statprune.analysis.published_text import published_markdown
from statprune.config.table_spec import load_table
from tests.helpers.verbs import verb


def test_the_papers_values_are_printed_with_their_sources(capsys):
    assert verb("tables", "ladder", "--scale", "paper", "--published") == 0
    assert capsys.readouterr().out == published_markdown([load_table("ladder", "paper")]) + "\n"


def test_a_scale_without_published_values_is_a_problem(capsys):
    assert verb("tables", "ladder", "--published") == 1
    assert "nothing of ladder is published at this scale; give --scale paper" in capsys.readouterr().err
