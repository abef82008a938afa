"""The prepared GPU check, as far as it can be tried without one."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_agreement import Pruned, compared, widest_gap
from benchmarks.gpu_check import SECTIONS, over_forwards_of_32_blocks
from benchmarks.gpu_findings import Findings, over

ROOT = Path(__file__).parents[1]


def test_a_killed_check_keeps_its_rows(tmp_path, capsys):
    findings = Findings(tmp_path / "new" / "speed.json", "shapes")
    findings.add({"method": "wanda"}, None)
    findings.add({"method": "ria"}, None, over("the ratio", 1.5, 1.25))
    kept = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert kept["what"] == "shapes" and kept["rows"] == [{"method": "wanda"}, {"method": "ria"}]
    assert kept["problems"] == findings.problems == ["the ratio is 1.5, over 1.25"]
    assert "WRONG: the ratio is 1.5" in capsys.readouterr().out


def test_what_is_within_its_limit_is_no_problem():
    assert over("the ratio", 1.25, 1.25) is None


def test_the_ratio_of_32_blocks_counts_what_the_last_block_leaves_out():
    # blocks that take 2 s to observe, 1 s to solve and 2 s to propagate, and 2 s in a plain forward
    phases = {"observe": 8.0, "solve": 4.0, "propagate": 6.0}
    assert over_forwards_of_32_blocks(phases, 8.0, 2) == pytest.approx((32 * 3 + 31 * 2) / (2 * 32 * 2))
    assert over_forwards_of_32_blocks({"observe": 8.0, "solve": 4.0}, 8.0, 1) == pytest.approx(1.5)


def test_the_docs_say_what_the_recorded_phases_give_for_32_blocks():
    rows = json.loads((ROOT / "benchmarks" / "results" / "gpu" / "speed.json").read_text())["rows"]
    ratios = {}
    for row in rows:
        forwards = 1 if row["propagation"] == "sequential" else 2
        ratios[row["method"], forwards] = f"{over_forwards_of_32_blocks(row['phases'], row['forward'], forwards):.2f}"
    two = [ratios[name, 2] for name in ("cvr+energy", "wanda + 64 scales", "sparsegpt")]
    for page in ("start/gpu.md", "results/speed.md"):
        text = " ".join((ROOT / "docs" / page).read_text().split())
        told = re.search(r"give (\S+) times two forwards for .*?, (\S+) with 64 scales, (\S+) for SparseGPT", text)
        assert told and list(told.groups()) == two, page
        assert f"and {ratios['cvr+energy', 1]} times one forward for `sequential`" in text


def test_scores_that_two_masks_choose_between():
    score = torch.tensor([[4.0, 3.0, 2.0, 1.0], [8.0, 6.0, 5.0, 1.0]])
    one = torch.tensor([[False, False, True, True], [False, True, False, True]])
    other = torch.tensor([[False, True, False, True], [True, False, False, True]])
    assert widest_gap(score, one, other) == pytest.approx(1 / 3)  # of 3 and 2; of 8 and 6 it is a quarter
    assert widest_gap(score, one, one) == 0


def test_masks_that_differ_are_named():
    mask = torch.tensor([[True, False]])
    on_cpu = Pruned(10.0, {"model.layers.0.q": mask, "model.layers.1.q": mask})
    on_gpu = Pruned(10.1, {"model.layers.0.q": ~mask, "model.layers.1.q": mask})
    row = compared(on_cpu, on_gpu)
    assert row["mask_entries_first_block"] == {"model.layers.0.q": 2}
    assert (row["mask_entries"], row["of"]) == (2, 4) and row["apart"] == pytest.approx(0.01)


def test_the_script_runs_every_section_in_less_than_six_minutes():
    script = (ROOT / "benchmarks" / "gpu_check.sh").read_text()
    parts = [line.split() for line in script.splitlines() if line.startswith(("check ", "part "))]
    assert {name for _, name, *_ in parts} == {*SECTIONS, "tests"}
    assert sum(int(limit) for _, _, limit, *_ in parts) < 360


def test_the_script_tells_of_a_machine_without_a_gpu(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu_check.sh", tmp_path / "out"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "false", "PARTS": "speed profile"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    log = (tmp_path / "out" / "log.txt").read_text()
    assert [line for line in log.splitlines() if line.startswith("== ")] == [
        "== speed",
        "== speed failed, missed a target or ran out of its 75 s",
        "== profile",
        "== profile failed, missed a target or ran out of its 30 s",
    ]
