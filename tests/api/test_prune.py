"""What ``statprune.prune`` makes of names, numbers and objects."""

import pytest

from statprune import BlockRatios, Energy, Group, NofM, Owl, PruneSpec, SparseGPT, Unstructured, get_method, prune
from statprune.core.methods import ScoreMethod
from statprune.core.patterns import PATTERNS
from statprune.core.scores import wanda
from statprune.data.windows import calibration_windows
from statprune.errors import ModelError
from statprune.pruning.loop import prune as prune_blocks
from statprune.pruning.spec import Propagation
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.weights import are_equal, weights_of
from tests.helpers.windows import random_windows


def test_names_do_what_objects_do_in_the_loop(tiny, dense):
    windows = random_windows(4, 16)
    result = prune(tiny, "cvr", "2:4", windows=windows, compensation="energy", propagation="sequential", seed=3)
    spec = PruneSpec(get_method("cvr"), NofM(2, 4), Energy(), None, Propagation.sequential, seed=3)
    prune_blocks(dense, windows, spec)
    assert result.spec == spec
    assert are_equal(weights_of(tiny.model), weights_of(dense.model))


@pytest.mark.parametrize("method", ["wanda", wanda, get_method("wanda")])
def test_a_method_is_a_name_a_score_or_a_method(method, tiny):
    result = prune(tiny, method, windows=random_windows(2, 16))
    assert isinstance(result.spec.method, ScoreMethod) and result.spec.method.score is wanda


@pytest.mark.parametrize("pattern", [0.5, "0.5", "50%", " 50 %", Unstructured(0.5), "unstructured"])
def test_a_ratio_is_a_number_a_text_or_a_pattern(pattern, tiny):
    assert prune(tiny, "wanda", pattern, windows=random_windows(2, 16)).spec.pattern == Unstructured(0.5)


def test_a_pattern_may_be_a_plugins_name(tiny, monkeypatch):
    monkeypatch.setattr(PATTERNS, "_registered", dict(PATTERNS._registered))
    PATTERNS.register("half", Unstructured)
    assert prune(tiny, "wanda", "half", windows=random_windows(2, 16)).sparsity == 0.5


@pytest.mark.parametrize(
    ("method", "group"), [("wanda", Group.row), ("magnitude", Group.matrix), (SparseGPT(), Group.matrix)]
)
def test_a_ratio_is_compared_as_the_methods_authors_do(method, group, tiny):
    assert prune(tiny, method, 0.5, windows=random_windows(2, 16)).spec.pattern.group is group


def test_nothing_is_added_to_what_is_asked_for(tiny):
    spec = prune(tiny, windows=random_windows(2, 16)).spec
    assert (spec.compensation, spec.refinement, spec.allocation) == (None, None, None)


@pytest.mark.parametrize(
    ("allocation", "expected"), [("owl", Owl()), ("uniform", None), (BlockRatios((0.4, 0.5, 0.6)), None)]
)
def test_an_allocation_is_a_name_or_an_object(allocation, expected, tiny):
    result = prune(tiny, "wanda", 0.5, windows=random_windows(2, 16), allocation=allocation)
    assert result.spec.allocation == (expected if isinstance(allocation, str) else allocation)
    assert result.sparsity == pytest.approx(0.5, abs=0.02)


def test_the_bundled_text_is_the_default_calibration(tiny):
    calibration = prune(tiny, "magnitude", seed=2).calibration
    own = calibration_windows(tiny.tokenizer, "bundled", 24, 64, 2)
    assert (calibration.samples, calibration.seq_len, calibration.seed) == (24, 64, 2)
    assert calibration.origin == own.origin


def test_windows_bring_their_origin(tiny):
    windows = calibration_windows(tiny.tokenizer, "bundled", 2, 32)
    assert prune(tiny, "magnitude", windows=windows).calibration.origin is windows.origin


def test_texts_are_joined_and_cut_into_windows(tiny):
    texts = ["one two three four five " * 20, "six seven eight nine ten " * 20]
    calibration = prune(tiny, "wanda", windows=texts).calibration
    tokens = len(tiny.tokenizer("\n\n".join(texts))["input_ids"])
    assert (calibration.samples, calibration.seq_len) == (tokens // 64, 64)
    assert calibration.origin.source == "texts"


def test_a_short_text_is_one_window(tiny):
    calibration = prune(tiny, "wanda", windows=["one two three four five"]).calibration
    assert calibration.samples == 1 and 2 <= calibration.seq_len < 64


def test_a_transformers_model_needs_a_tokenizer_for_texts_alone():
    model, texts = tiny_llama(), ["one two three four five"]
    with pytest.raises(ModelError, match="a tokenizer is needed to read texts"):
        prune(model, "wanda", windows=texts)
    assert prune(model, "wanda", windows=texts, tokenizer=tiny_tokenizer()).sparsity == 0.5


def test_excluded_matrices_are_in_the_coverage(tiny):
    coverage = prune(tiny, "wanda", windows=random_windows(2, 16), exclude=["down_proj"]).coverage
    assert coverage.skipped == 3 * 32 * 48 and coverage.kinds["mlp.down_proj"].reasons == {"excluded": 3 * 32 * 48}
    assert coverage.pruned + coverage.skipped == 23040


def test_progress_is_a_line_for_each_block_off_a_terminal(tiny, capsys):
    prune(tiny, "wanda", windows=random_windows(2, 16), progress=True)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 3
    assert lines[2].startswith("pruning blocks: 3 of 3, mean relative output error 0.")


def test_nothing_is_shown_unasked(tiny, capsys):
    prune(tiny, "wanda", windows=random_windows(2, 16))
    assert capsys.readouterr() == ("", "")


def test_on_block_is_called_with_each_blocks_reports(tiny):
    seen = []
    result = prune(tiny, "wanda", windows=random_windows(2, 16), on_block=lambda *own: seen.append(own))
    assert [(index, count) for index, count, _ in seen] == [(0, 3), (1, 3), (2, 3)]
    assert [report for *_, reports in seen for report in reports] == list(result.matrices)
