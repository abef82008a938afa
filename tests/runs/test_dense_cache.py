"""Results of the dense model as files that other runs can use."""

import pytest

from statprune.runs.pipeline import run
from statprune.runs.workbench import Workbench
from tests.helpers.command import tiny_job
from tests.helpers.tasks import evaluated


@pytest.mark.parametrize("content", ["{", "[1]", '{"bundled": "x"}'])
def test_a_damaged_perplexity_is_measured_again(content, tiny_folder, tmp_path, caplog):
    config = tiny_job(tiny_folder, "method=dense", f"cache={tmp_path / 'cache'}")
    first = run(config, tmp_path / "a")
    (file,) = (tmp_path / "cache" / "dense").iterdir()
    file.write_text(content)
    again = run(config, tmp_path / "b")
    assert again.perplexity == first.perplexity and again.reused == []
    assert "damaged" in caplog.text


def test_a_perplexity_is_stored_once_and_reused(tiny_folder, tmp_path):
    config = tiny_job(tiny_folder, "method=dense", f"cache={tmp_path / 'cache'}")
    first = run(config, tmp_path / "a")
    again = run(config, tmp_path / "b")
    assert again.perplexity == first.perplexity and again.reused == ["the dense perplexity"]
    assert len(list((tmp_path / "cache" / "dense").iterdir())) == 1


def test_a_cache_that_cant_be_written_costs_a_warning(tiny_folder, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    record = run(tiny_job(tiny_folder, "method=dense", f"cache={tmp_path / 'cache'}"), tmp_path / "run")
    assert record.is_finished and "the dense perplexity could not be stored in" in caplog.text


@pytest.fixture
def cached(lively_folder, tasks, tmp_path):
    """A run with tasks whose dense model's answers are in a cache, and a function that runs it again with changes."""

    def again(*changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        config = evaluated(lively_folder, tasks, f"cache={tmp_path / 'cache'}", *changes)
        return run(config, folder, Workbench(holds_model=False))

    return again(), again


def test_dense_accuracies_are_measured_where_the_cache_has_none(cached, measured):
    first, _ = cached
    assert "the dense accuracies" not in first.reused
    assert first.zero_shot == measured[0].zero_shot


def test_dense_accuracies_are_reused_for_the_same_requests(cached):
    first, again = cached
    second = again("seed=1")
    assert "the dense accuracies" in second.reused and second.zero_shot == first.zero_shot


def test_dense_accuracies_are_measured_again_for_other_requests(cached):
    _, again = cached
    assert "the dense accuracies" not in again("evaluation.num_fewshot=1").reused


def test_damaged_accuracies_are_measured_again(cached, tmp_path, caplog):
    first, again = cached
    for file in (tmp_path / "cache" / "zero_shot").glob("*.json"):
        file.write_text(file.read_text()[:100])
    damaged = again("seed=2")
    assert "the dense accuracies" not in damaged.reused and "is damaged and not used" in caplog.text
    assert damaged.zero_shot == first.zero_shot
