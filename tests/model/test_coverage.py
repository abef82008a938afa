"""How much of a model can be pruned, and the warning about what can't."""

import json

import pytest

from statprune.model.coverage import KindCoverage, coverage_warning, measure_coverage
from statprune.runs.pipeline import run
from statprune.walk.discover import find_blocks
from tests.helpers.blocks import LinearBlock
from tests.helpers.command import composed
from tests.helpers.families import Model, tiny_model
from tests.helpers.loading import saved
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)


@pytest.fixture(scope="module")
def mixture():
    return tiny_model("Qwen3MoeConfig")


@pytest.fixture(scope="module")
def partial(mixture):
    """Coverage of blocks of which some matrices are excluded."""
    return measure_coverage(find_blocks(mixture, WINDOWS, exclude=[r"layers\.1\.", r"[vo]_proj$"]))


def test_a_router_is_counted_as_skipped(mixture):
    router = measure_coverage(find_blocks(mixture, WINDOWS)).kinds["mlp.gate"]
    assert router == KindCoverage(prunable=0, pruned=0, skipped=2 * 6 * 32, reasons={"router": 2 * 6 * 32})


def test_the_experts_of_all_blocks_are_counted_together(mixture):
    coverage = measure_coverage(find_blocks(mixture, WINDOWS))
    assert coverage.kinds["mlp.experts.gate_up_proj"].prunable == 2 * 6 * 32 * 32


def test_nothing_is_skipped_where_routers_are_pruned(mixture):
    assert measure_coverage(find_blocks(mixture, WINDOWS, prune_routers=True)).skipped == 0


def test_the_reasons_of_one_kind_are_counted_each(partial):
    assert partial.kinds["mlp.gate"].reasons == {"router": 192, "excluded": 192}


def test_excluded_matrices_are_counted_under_their_kind(partial):
    assert partial.kinds["self_attn.v_proj"].reasons == {"excluded": 1024}


def test_the_warning_leaves_out_what_was_excluded_on_purpose(partial):
    assert coverage_warning(partial).endswith("are left dense: mlp.gate (192 weights: router)")


class Hidden(LinearBlock):
    """A block whose product is no matrix product."""

    def forward(self, hidden_states):
        return hidden_states + (hidden_states[..., None, :] * self.linear.weight).sum(-1)


def test_the_warning_says_how_much_is_left_dense_and_why():
    warning = coverage_warning(measure_coverage(find_blocks(Model(Hidden(), LinearBlock()), WINDOWS)))
    assert warning.startswith("50.0% of") and "linear (256 weights: no product seen)" in warning


def test_a_model_that_is_pruned_whole_has_no_warning():
    assert coverage_warning(measure_coverage(find_blocks(Model(LinearBlock()), WINDOWS))) is None


def test_a_run_that_prunes_nothing_covers_nothing():
    coverage = measure_coverage(find_blocks(Model(LinearBlock()), WINDOWS), is_pruned=False)
    assert coverage.pruned == 0 < coverage.prunable


@pytest.fixture(scope="module")
def expert_run(mixture, tmp_path_factory):
    """Record and lines of ``blocks.jsonl`` of a run with few tokens."""
    folder = tmp_path_factory.mktemp("experts")
    small = ["calibration.samples=2", "calibration.seq_len=16", "evaluation=none", "tracking=disabled"]
    record = run(composed(f"model.path={saved(mixture, folder / 'model')}", *small), folder)
    return record, [json.loads(line) for line in (folder / "blocks.jsonl").read_text().splitlines()]


def test_experts_with_pooled_statistics_are_counted_once_in_the_record(expert_run):
    record, lines = expert_run
    few = {(line["block"], line["expert"]) for line in lines if line["expert"] and line["calibration_tokens"] < 32}
    assert 0 < len(few) <= 12 and record.coverage.experts_with_pooled_statistics == len(few)


def test_an_expert_has_at_most_the_tokens_of_the_calibration(expert_run):
    _, lines = expert_run
    assert sum(line["calibration_tokens"] for line in lines if line["layer"].endswith("down_proj[0]")) <= 64
