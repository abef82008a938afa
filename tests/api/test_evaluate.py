"""What ``statprune.evaluate`` measures is what the packages below measure."""

import math
from pathlib import Path

import pytest

from statprune import TaskOptions, evaluate, evaluation_windows, prune
from statprune.api.evaluation_result import Estimate
from statprune.errors import ConfigError
from statprune.evaluation.fidelity import window_fidelity
from statprune.evaluation.perplexity import perplexity, window_losses
from statprune.model.loading import load_model
from tests.helpers.tasks import choices
from tests.helpers.windows import random_windows


def test_perplexity_is_that_of_the_windows(tiny):
    own = evaluate(tiny, "bundled", seq_len=32, max_windows=5).perplexity["bundled"]
    ids = evaluation_windows(tiny.tokenizer, "bundled", 32, 5).ids
    losses = window_losses(tiny.model, ids)
    assert own.value == pytest.approx(perplexity(tiny.model, ids), rel=1e-12)
    assert (own.windows, own.seq_len, own.tokens) == (5, 32, 5 * 31)
    error = losses.std().item() / math.sqrt(5)
    assert own.loss == Estimate(losses.mean().item(), error) and own.standard_error == own.value * error


def test_one_window_has_no_standard_error(tiny):
    own = evaluate(tiny, {"mine": random_windows(1, 16)}).perplexity["mine"]
    assert own.loss.standard_error is None and own.standard_error is None


def test_windows_are_as_long_as_the_models_positions_at_most(tiny):
    assert evaluate(tiny, ["bundled"], max_windows=1).perplexity["bundled"].seq_len == 64


def test_fidelity_is_measured_on_each_dataset(tiny, dense):
    prune(tiny, "magnitude", 0.5, windows=random_windows(2, 16))
    windows = {"one": random_windows(3, 16), "other": random_windows(2, 24, seed=1)}
    found = evaluate(tiny, windows, dense=dense).fidelity
    for name, ids in windows.items():
        own = window_fidelity(dense.model, tiny.model, ids)
        assert found[name].divergence == Estimate.of(own.divergence)
        assert found[name].agreement == Estimate.of(own.agreement) and found[name].windows == len(ids)


def test_streamed_blocks_give_the_same_perplexity(tiny_folder, tmp_path):
    whole, streamed = load_model(str(tiny_folder)), load_model(str(tiny_folder), offload="cpu")
    windows = {"mine": random_windows(3, 16)}
    assert evaluate(streamed, windows).perplexity == evaluate(whole, windows).perplexity
    streamed.close()


def test_accuracy_is_lm_evals(tiny, tmp_path):
    choices("alone", tmp_path, 9)
    found = evaluate(tiny, (), str(tmp_path), task_options=TaskOptions(limit=4))
    task = found.zero_shot["alone"]
    assert (task.metric, task.documents, task.shots, task.version) == ("acc", 4, 0, 2.5)
    assert 0 <= task.value <= 1 and found.perplexity == {}


def test_a_metric_that_cant_act_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"has no effect with evaluation\.tasks=\[denoise_rotator5\]"):
        evaluate(tiny, (), "denoise_rotator5", task_options=TaskOptions(metric="acc_norm"))


def test_a_frame_has_a_row_for_each_number(tiny, dense, tmp_path: Path):
    frame = evaluate(tiny, {"mine": random_windows(3, 16)}, dense=dense).to_frame()
    assert frame.measure.tolist() == ["perplexity", "divergence", "agreement"] and set(frame.on) == {"mine"}
    assert frame.value.tolist()[1:] == [0, 1] and frame["count"].tolist() == [3, 3, 3]


def test_progress_names_what_is_measured(tiny, dense, capsys):
    evaluate(tiny, {"mine": random_windows(3, 16)}, dense=dense, progress=True)
    assert capsys.readouterr().err.splitlines() == ["perplexity on mine: 3 of 3", "fidelity on mine: 3 of 3"]
