"""torchrun with several processes on the CPU (gloo): the same masks, record and files as one process."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from transformers import AutoModelForCausalLM

from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from statprune.system import distributed
from statprune.system.distributed import assign_owners, gathered, lost_process, own_part
from tests.helpers.command import composed, in_processes, processes_environment, torchrun
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_tokenizer

SMALL = ["calibration.samples=5", "calibration.seq_len=32", "calibration.batch_size=2", "evaluation.max_windows=3"]
SMALL += ["device=cpu", "tracking=disabled", "save_model=true"]
CASES = [
    pytest.param(
        ("LlamaConfig", 2, ["method=sparsegpt", "sparsity.ratio=0.6"]), id="sparsegpt", marks=pytest.mark.long
    ),
    pytest.param(
        ("LlamaConfig", 3, ["propagation=sequential", "offload=disk", "compensation=moments"]),
        id="sequential-disk-moments",
        marks=pytest.mark.long,
    ),
    pytest.param(
        (
            "Qwen3MoeConfig",
            2,
            ["calibration.min_expert_tokens=20", "sparsity.allocation=owl", "hydra.run.dir=outputs/default/named"],
        ),
        id="experts-owl",
    ),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models saved with a tokenizer."""

    def get(name):
        folder = tmp_path_factory.mktemp(name)
        tiny_model(name).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return get


@dataclass
class Pair:
    """The same job in one process and in several."""

    processes: int
    done: CompletedProcess
    working_folder: Path
    one: Path
    several: Path

    def records(self):
        return [json.loads((folder / "result.json").read_text()) for folder in (self.one, self.several)]

    def reports(self):
        """Lines of ``blocks.jsonl`` of both, matrix by matrix."""
        lines = [(folder / "blocks.jsonl").read_text().splitlines() for folder in (self.one, self.several)]
        return [(json.loads(one), json.loads(several)) for one, several in zip(*lines, strict=True)]

    def weights(self):
        """Name and value in both of the saved models."""
        one, several = (
            AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (self.one, self.several)
        )
        return [(key, value, several[key]) for key, value in one.items()]


@pytest.fixture(scope="module", params=CASES)
def pair(request, folders, tmp_path_factory):
    name, processes, options = request.param
    overrides = [f"model.path={folders(name)}", *SMALL, *options]
    one, working_folder = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("several")
    run(composed(*overrides), one)
    done = in_processes(processes, *overrides, cwd=working_folder)
    assert done.returncode == 0, done.stderr
    (several,) = (working_folder / "outputs" / "default").iterdir()
    return Pair(processes, done, working_folder, one, several)


def test_several_processes_give_the_masks_of_one(pair):
    for key, one, several in pair.weights():
        assert torch.equal(one == 0, several == 0), key


def test_several_processes_give_the_weights_of_one_but_for_rounding(pair):
    for key, one, several in pair.weights():
        assert torch.allclose(one, several, rtol=1e-4, atol=1e-6), key


def test_the_record_says_how_many_processes_there_were(pair):
    one, several = pair.records()
    assert one["environment"]["processes"] == 1 and several["environment"]["processes"] == pair.processes


@pytest.mark.parametrize("key", ["sparsity", "coverage", "config_hash", "calibration"])
def test_several_processes_record_what_one_does(key, pair):
    one, several = pair.records()
    assert one[key] == several[key]


def test_several_processes_measure_the_perplexity_of_one(pair):
    one, several = (record["perplexity"]["bundled"] for record in pair.records())
    assert several["pruned"] == pytest.approx(one["pruned"], rel=1e-5)


def test_several_processes_report_the_matrices_in_the_order_of_one(pair):
    for one, several in pair.reports():
        assert one["layer"] == several["layer"] and one["calibration_tokens"] == several["calibration_tokens"]


@pytest.mark.parametrize("key", ["relative_output_error", "score_mean"])
def test_several_processes_report_the_numbers_of_one(key, pair):
    for one, several in pair.reports():
        if one.get(key) is not None:
            assert several[key] == pytest.approx(one[key], rel=1e-3), one["layer"]


def test_only_one_process_prints_the_result(pair):
    assert pair.done.stdout.count("perplexity pruned") == 1


def test_nothing_is_written_beside_the_runs_folder(pair):
    assert [path.name for path in pair.working_folder.iterdir()] == ["outputs"]


def test_a_problem_is_reported_by_one_process(tmp_path):
    done = in_processes(2, "sparsity.ratio=2", cwd=tmp_path)
    assert done.returncode != 0 and done.stderr.count("statprune: sparsity.ratio=2.0 is outside [0, 1)") == 1


@pytest.fixture(scope="module")
def half_failed(folders, tmp_path_factory):
    """A sweep of two jobs in two processes, of which one fails everywhere; and its folder."""
    folder = tmp_path_factory.mktemp("half_failed")
    overrides = [f"model.path={folders('LlamaConfig')}", *SMALL, "method=wanda", "sparsity.keep=2", "sparsity.of=5,4"]
    return torchrun(2, "-m", *overrides, cwd=folder), folder


@pytest.mark.long
def test_a_job_that_fails_everywhere_does_not_stop_the_others(half_failed):
    done, folder = half_failed
    assert done.returncode != 0 and "2 runs: 1 finished, 1 failed" in done.stdout, done.stderr
    assert len([*folder.glob("outputs/default/*/result.json")]) == 1


@pytest.mark.long
def test_a_job_that_fails_everywhere_is_reported_by_one_process(half_failed):
    done, _ = half_failed
    assert done.stderr.count("the pattern does not fit") == 1 and "process 1 of 2" not in done.stderr


ALONE = """
import os, time, torch
from statprune.system.distributed import all_arrive, rank, start

start(torch.device("cpu"))
assert all_arrive(30)
if rank() == 1:
    time.sleep(0.5)
    print("alone" if not all_arrive(0.5) else "not alone", flush=True)
else:
    time.sleep(2.5)  # amid other work
os._exit(0)
"""


def test_a_process_that_fails_alone_notices(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    done = torchrun(2, cwd=tmp_path, program=["alone.py"])
    assert done.stdout.split() == ["alone"], done.stderr


def test_a_process_that_has_ended_is_a_sentence_of_the_others(monkeypatch):
    error = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41771")
    assert lost_process(error) is None  # of whom there are none
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert lost_process(error).startswith("another process of this job has ended")
    assert lost_process(RuntimeError("shapes do not fit")) is None


def test_one_process_does_all_of_the_work():
    assert own_part(7) == slice(0, 7) and gathered(3) == [3] and assign_owners([1.0, 2.0]) == [0, 0]


def test_the_parts_of_all_processes_are_the_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for process in range(3):
        monkeypatch.setenv("RANK", str(process))
        parts += list(range(7))[own_part(7)]
    assert parts == list(range(7))


def test_processes_get_about_as_much_work_each(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    costs = [5.0, 1.0, 1.0, 3.0, 4.0, 1.0]
    loads = [0.0] * 3
    for cost, owner in zip(costs, assign_owners(costs), strict=True):
        loads[owner] += cost
    assert sorted(loads) == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_never_starts_is_not_waited_for_as_for_an_exchange(rank, monkeypatch):
    for key, value in processes_environment(2)[rank].items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(distributed, "FIRST_WAIT", timedelta(seconds=1))
    with pytest.raises(StatpruneError, match="the 2 processes of this job did not all start within 1 seconds"):
        distributed.start(torch.device("cpu"))


def test_a_process_that_was_killed_before_it_joined_is_not_waited_for_either(monkeypatch):
    for key, value in processes_environment(2)[0].items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(distributed, "FIRST_WAIT", timedelta(seconds=1))
    store = torch.distributed.HashStore()
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))  # where both had connected
    with pytest.raises(StatpruneError, match="did not all start"):
        distributed.start(torch.device("cpu"))
