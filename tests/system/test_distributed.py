"""torchrun with several processes on the CPU (gloo): the same masks, record and files as one process."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.errors import ModelError
from statprune.pruning.loop import prune
from statprune.runs.pipeline import run
from statprune.system.distributed import gathered, owners, share
from tests.helpers.command import composed, torchrun
from tests.helpers.families import tiny
from tests.helpers.models import tiny_llama, tiny_tokenizer

SMALL = ["calibration.samples=5", "calibration.seq_len=32", "calibration.batch_size=2", "evaluation.max_windows=3"]
SMALL += ["device=cpu", "tracking=disabled", "save_model=true"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models saved with a tokenizer."""

    def get(name):
        folder = tmp_path_factory.mktemp(name)
        tiny(name).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return get


@pytest.mark.parametrize(
    ("name", "processes", "overrides"),
    [
        ("LlamaConfig", 2, ["method=sparsegpt", "sparsity.ratio=0.6"]),
        ("LlamaConfig", 3, ["propagation=sequential", "offload=disk", "compensation=moments"]),
        (
            "Qwen3MoeConfig",
            2,
            ["calibration.min_expert_tokens=20", "sparsity.allocation=owl", "hydra.run.dir=outputs/default/given"],
        ),
    ],
)
def test_several_processes_give_the_masks_of_one(name, processes, overrides, folders, tmp_path):
    overrides = [f"model.path={folders(name)}", *SMALL, *overrides]
    one, several = tmp_path / "one", tmp_path / "several"
    several.mkdir()
    run(composed(*overrides), one)
    assert (done := torchrun(processes, *overrides, cwd=several)).returncode == 0, done.stderr
    assert done.stdout.count("perplexity pruned") == 1
    assert [path.name for path in several.iterdir()] == ["outputs"]
    (other,) = (several / "outputs" / "default").iterdir()
    runs = [one, other]
    models = [AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in runs]
    for key, value in models[0].items():
        assert torch.equal(value == 0, models[1][key] == 0), key
        assert torch.allclose(value, models[1][key], rtol=1e-4, atol=1e-6), key
    records = [json.loads((folder / "result.json").read_text()) for folder in runs]
    assert records[0]["environment"]["processes"] == 1 and records[1]["environment"]["processes"] == processes
    for key in ("sparsity", "coverage", "config_hash", "calibration"):
        assert records[0][key] == records[1][key], key
    first, second = (record["metrics"]["perplexity"]["bundled"] for record in records)
    assert second["pruned"] == pytest.approx(first["pruned"], rel=1e-5)
    lines = [[json.loads(line) for line in (folder / "blocks.jsonl").read_text().splitlines()] for folder in runs]
    for mine, theirs in zip(*lines, strict=True):
        assert mine["layer"] == theirs["layer"] and mine["calibration_tokens"] == theirs["calibration_tokens"]
        for key in ("relative_output_error", "score_mean"):
            if mine.get(key) is not None:
                assert theirs[key] == pytest.approx(mine[key], rel=1e-3), (mine["layer"], key)


def test_what_is_wrong_is_said_once(tmp_path):
    done = torchrun(2, "sparsity.ratio=2", cwd=tmp_path)
    assert done.returncode != 0 and done.stderr.count("statprune: sparsity.ratio=2.0 is outside [0, 1)") == 1


def test_a_job_that_fails_everywhere_does_not_stop_the_others(folders, tmp_path):
    overrides = [f"model.path={folders('LlamaConfig')}", *SMALL, "method=wanda", "sparsity.keep=2", "sparsity.of=5,4"]
    done = torchrun(2, "-m", *overrides, cwd=tmp_path)
    assert done.returncode != 0 and "2 runs: 1 finished, 1 failed" in done.stdout, done.stderr
    assert done.stderr.count("the N:M pattern does not fit") == 1 and "process 1 of 2" not in done.stderr
    assert len([*tmp_path.glob("outputs/default/*/result.json")]) == 1


ALONE = """
import os, time, torch
from statprune.system.distributed import rank, start, stop, together

start(torch.device("cpu"))
assert together(30)
if rank() == 1:
    time.sleep(1.0)
    print("alone" if not together(1.0) else "not alone", flush=True)
else:
    time.sleep(4.0)  # amid other work
os._exit(0)
"""


def test_a_process_that_fails_alone_knows(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    done = torchrun(2, cwd=tmp_path, program=["alone.py"])
    assert done.stdout.split() == ["alone"], done.stderr


def test_work_is_split_evenly_and_one_process_is_rank_0_of_1(monkeypatch):
    assert share(7) == slice(0, 7) and gathered(3) == [3] and owners([1.0, 2.0]) == [0, 0]
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(sys.modules["statprune.pruning.loop"], "start", lambda device: None)
    with pytest.raises(ModelError, match="2 calibration windows can't be split over 3 processes; start fewer"):
        prune(tiny_llama(), torch.ones(2, 8, dtype=torch.long), get_method("wanda"), Unstructured(0.5))
    parts = []
    for process in range(3):
        monkeypatch.setenv("RANK", str(process))
        parts += list(range(7))[share(7)]
    assert parts == list(range(7))
    costs = [5.0, 1.0, 1.0, 3.0, 4.0, 1.0]
    loads = [sum(cost for cost, owner in zip(costs, owners(costs), strict=True) if owner == p) for p in range(3)]
    assert sorted(loads) == [5.0, 5.0, 5.0]
