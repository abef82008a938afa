"""Runs side by side: differing keys, paired differences, and why some are not paired."""

import json
import shutil
from pathlib import Path

import numpy
import pandas
import pytest

from statprune.analysis.compare import compare
from statprune.analysis.compare_text import print_comparison, to_json
from statprune.errors import StatpruneError
from tests.helpers.old_records import copy_schema_1


@pytest.fixture
def runs(tmp_path):
    """Runs of an older version: plain, zero_shot, mixture and pending."""
    return copy_schema_1(tmp_path / "runs")


def edited(folder: Path, copy: str, *changes: tuple[str, object]) -> Path:
    """A copy of a run with values of its record replaced, each below a path of keys."""
    new = Path(shutil.copytree(folder, folder.with_name(copy)))
    values = json.loads((new / "result.json").read_text())
    for path, value in changes:
        *parents, last = path.split("/")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    (new / "result.json").write_text(json.dumps(values))
    return new


def rewritten(folder: Path, name: str, change) -> None:
    """Replace a file's table by what ``change`` makes of it."""
    change(pandas.read_parquet(folder / name)).to_parquet(folder / name)


def test_keys_that_differ_have_the_values_of_all_runs(runs):
    config = compare([runs / "plain", runs / "zero_shot", runs / "mixture"]).config
    assert config["method.name"] == [{"method.name": name} for name in ("wanda", "magnitude", "cvr")]
    assert config["method.alpha"] == [{}, {}, {"method.alpha": 0.5}]
    assert "seed" not in config and "name" not in config


def test_the_difference_of_losses_is_that_of_the_same_windows(runs):
    first, second = compare([runs / "plain", runs / "zero_shot"]).perplexity["bundled"]
    losses = [pandas.read_parquet(runs / name / "windows.parquet").pruned_loss for name in ("plain", "zero_shot")]
    assert first.interval is None and first.unpaired is None and second.unpaired is None
    assert second.interval.difference == pytest.approx((losses[1] - losses[0]).mean())
    assert second.interval.low < second.interval.difference < second.interval.high
    assert second.interval.difference == pytest.approx(numpy.log(second.pruned / first.pruned), abs=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("sha256", "0", "its text is another"),
        ("seq_len", 16, "its windows have 16 tokens, and the first run's 32"),
        ("windows", 3, "it has 3 windows, and the first run 4"),
        ("begins_with_bos", True, "its tokenizer cuts the text otherwise"),
    ],
)
def test_other_windows_are_not_paired(key, value, reason, runs):
    other = edited(runs / "plain", "other", (f"metrics/perplexity/bundled/{key}", value))
    _, number = compare([runs / "plain", other]).perplexity["bundled"]
    assert number.interval is None and number.unpaired == reason and number.pruned is not None


def test_a_dataset_of_one_run_alone_is_not_paired(runs):
    other = edited(runs / "plain", "other", ("metrics/perplexity", {}))
    (measured, missing), (absent, alone) = (
        compare(pair).perplexity["bundled"] for pair in ([runs / "plain", other], [other, runs / "plain"])
    )
    assert measured.pruned is not None and missing.unpaired == "it was not measured on this text"
    assert absent.unpaired is None and alone.unpaired == "the first run was not measured on this text"


def test_windows_that_are_not_there_are_not_paired(runs):
    other = edited(runs / "plain", "other")
    (other / "windows.parquet").unlink()
    assert compare([runs / "plain", other]).perplexity["bundled"][1].unpaired == "a windows.parquet can't be read"


def test_a_loss_that_is_not_finite_is_not_paired(runs):
    other = edited(runs / "plain", "other")
    rewritten(other, "windows.parquet", lambda table: table.assign(pruned_loss=numpy.inf))
    assert compare([runs / "plain", other]).perplexity["bundled"][1].unpaired == "a window's number is not finite"


def test_answers_are_paired_by_their_documents_in_whatever_order(runs):
    other = edited(runs / "zero_shot", "other")
    worse = lambda table: table.assign(pruned=0.0).sample(frac=1, random_state=0)  # noqa: E731
    rewritten(other, "documents.parquet", worse)
    first, second = compare([runs / "zero_shot", other]).accuracy["alone"]
    assert second.interval.difference == pytest.approx(-first.pruned) and second.interval.high <= 0


@pytest.mark.parametrize("change", [lambda table: table.iloc[:-1], lambda table: table.assign(document_hash="0")])
def test_other_documents_are_not_paired(change, runs):
    other = edited(runs / "zero_shot", "other")
    metric = json.loads((other / "result.json").read_text())["metrics"]["zero_shot"]["tasks"]["alone"]["metric"]
    rewritten(other, "documents.parquet", lambda table: change(table[table["metric"] == metric]))
    assert compare([runs / "zero_shot", other]).accuracy["alone"][1].unpaired == "its documents are not the first run's"


def test_a_group_has_no_documents_of_its_own(runs):
    other = edited(runs / "zero_shot", "other")
    rewritten(other, "documents.parquet", lambda table: table.assign(task="its task"))
    assert compare([runs / "zero_shot", other]).accuracy["alone"][1].unpaired == "there is no document of its own"


def test_tasks_of_one_run_alone_are_not_paired(runs):
    numbers = compare([runs / "plain", runs / "zero_shot", runs / "mixture"]).accuracy["alone"]
    assert [number.unpaired for number in numbers] == [
        None,
        "the first run was not asked this task",
        "it was not asked this task",
    ]


def test_another_machine_is_told(runs, capsys):
    other = edited(runs / "plain", "other", ("environment/device", "H100"), ("environment/packages/torch", "9"))
    comparison = compare([runs / "plain", other])
    assert comparison.environment["device"][1] == "H100" and comparison.environment["torch"][1] == "9"
    print_comparison(comparison)
    assert "Seconds are of different machines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["plain"], "a single run has nothing to be compared with"),
        (["plain", "mixture/../plain"], "plain is given twice"),
        (["plain", "nowhere"], "nowhere holds no result.json; give the folder of a run"),
        (["plain", "pending"], "pending lacks its zero-shot evaluation; start its command again"),
    ],
)
def test_what_cant_be_compared_is_a_sentence(names, message, runs):
    with pytest.raises(StatpruneError, match=message):
        compare([runs / name for name in names])


def test_a_comparison_fits_into_80_columns(runs, capsys):
    print_comparison(compare([runs / "plain", runs / "zero_shot", runs / "mixture"]))
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("run ")]
    assert max(map(len, lines)) <= 80


def test_a_comparison_is_printed_with_its_runs_keys_intervals_and_reasons(runs, capsys):
    comparison = compare([runs / "plain", runs / "zero_shot"])
    print_comparison(comparison)
    printed = capsys.readouterr().out
    interval = comparison.perplexity["bundled"][1].interval
    assert printed.startswith(f"run 1: {runs / 'plain'}\nrun 2: {runs / 'zero_shot'}\n")
    assert f"{interval.difference:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})" in printed
    assert "Run 2 is not paired with run 1: the first run was not asked this task." in printed
    assert '["tasks/alone.yaml"]' in printed


def test_runs_with_the_same_configuration_say_so(runs, capsys):
    print_comparison(compare([runs / "plain", edited(runs / "plain", "other")]))
    assert "The configurations do not differ in what changes a number." in capsys.readouterr().out


def test_facts_are_plain_values(runs):
    facts = json.loads(to_json(compare([runs / "plain", runs / "zero_shot"])))
    assert facts["runs"] == [str(runs / "plain"), str(runs / "zero_shot")]
    assert facts["config"][0]["method.name"] == "wanda" and "compensation.samples" not in facts["config"][1]
    assert set(facts["perplexity"]["bundled"][1]["interval"]) == {"difference", "low", "high"}
    assert facts["sparsity"][0] == pytest.approx(0.5) and facts["seconds"][0]["load"] > 0
