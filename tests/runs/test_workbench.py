"""What runs of one process share changes no number."""

import pytest
import torch

from statprune.runs.pipeline import run
from statprune.runs.workbench import Workbench
from tests.helpers.command import composed, tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.runs import SMALL, numbers

JOBS = ["method=sparsegpt", "method=wanda", "method=cvr", "method=sparsegpt method.damping=0.1", "method=magnitude"]


def densely(tiny_folder, job):
    """A job with dense propagation, whose calibration pass depends on no method."""
    return composed(*SMALL, f"model.path={tiny_folder}", "propagation=dense", *job.split())


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_folder):
    """The folder of jobs that ran one after the other, their records, and their workbench."""
    folder, bench = tmp_path_factory.mktemp("shared"), Workbench(holds_model=True)
    records = [
        run(densely(tiny_folder, job), folder / "outputs" / "shared" / str(number), bench)
        for number, job in enumerate(JOBS)
    ]
    return folder, records, bench


def test_with_dense_propagation_one_pass_serves_every_method(shared):
    _, records, _ = shared
    assert ["the calibration pass" in record.reused for record in records] == [False, True, True, True, True]


@pytest.mark.parametrize("number", range(len(JOBS)), ids=JOBS)
def test_jobs_that_share_a_pass_have_the_numbers_of_separate_runs(number, shared, tiny_folder, tmp_path):
    run(densely(tiny_folder, JOBS[number]), tmp_path / "outputs" / "alone" / str(number))
    assert numbers(tmp_path)[str(number)] == numbers(shared[0])[str(number)]


@pytest.mark.parametrize("job", ["method=wanda seed=1", "method=sparsegpt gram_precision=tf32"])
def test_other_windows_or_products_need_a_pass_of_their_own(job, shared, tiny_folder, tmp_path):
    _, _, bench = shared
    other = run(densely(tiny_folder, job), tmp_path, bench)
    assert "the calibration pass" not in other.reused and "the model" in other.reused


def test_the_first_run_of_several_predicts_the_copy_of_the_dense_weights(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("statprune.pruning.budget.resident", lambda: 0)  # it differs from run to run
    config, bench = tiny_job(tiny_folder, "method=wanda"), Workbench(holds_model=True)
    alone = run(config, tmp_path / "alone")
    first, second = (run(config, tmp_path / place, bench) for place in ("first", "second"))
    copied = alone.coverage.pruned * torch.float32.itemsize
    alone, first, second = (record.memory.predicted_host_bytes for record in (alone, first, second))
    assert copied > 0 and (first - alone, second - alone) == (copied, 0)


@pytest.fixture(scope="module")
def changed_model(tmp_path_factory):
    """Records of runs before and after the model's weights were changed on disk, by what they were."""
    base = tmp_path_factory.mktemp("changed")
    folder, cache = base / "model", f"cache={base / 'cache'}"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    bench, config = Workbench(holds_model=True), tiny_job(folder, "method=wanda", cache)
    records = {"before": run(config, base / "before", bench)}
    records["cached"] = run(config, base / "cached", Workbench(holds_model=False))
    changed = tiny_llama()
    with torch.no_grad():
        changed.model.layers[0].mlp.down_proj.weight.mul_(3)
    changed.save_pretrained(folder)
    records["after"] = run(config, base / "after", bench)
    records["uncached"] = run(tiny_job(folder, "method=ria", "cache=null"), base / "uncached", bench)
    return records


def test_the_dense_perplexity_of_an_unchanged_model_is_taken_from_the_cache(changed_model):
    assert "the dense perplexity" in changed_model["cached"].reused


def test_a_model_that_changed_on_disk_is_not_taken_from_memory_or_cache(changed_model):
    assert changed_model["after"].reused == []


def test_a_model_that_changed_on_disk_is_measured_again(changed_model):
    before, after = (changed_model[name].perplexity["bundled"].dense for name in ("before", "after"))
    assert before != after


def test_a_run_without_a_cache_reuses_what_is_in_memory(changed_model):
    assert {"the model", "the dense perplexity"} <= set(changed_model["uncached"].reused)
