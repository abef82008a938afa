"""What does not fit the model is an error before any expensive step."""

import pytest
import torch

from statprune.data.windows import TextOrigin, Windows
from statprune.errors import DataError, ModelError
from statprune.runs.pipeline import run
from statprune.runs.prepare import overlap_warning
from tests.helpers.command import tiny_job
from tests.helpers.tasks import evaluated


def test_windows_longer_than_the_models_positions_are_refused(tmp_path, tiny_folder):
    with pytest.raises(ModelError, match=r"calibration\.seq_len=65 is longer than the model's 64 positions"):
        run(tiny_job(tiny_folder, "calibration.seq_len=65"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def test_a_pattern_that_does_not_divide_a_matrix_is_refused(tmp_path, tiny_folder):
    with pytest.raises(ModelError, match=r": 32 inputs are not divisible by M=5 \(self_attn\.q_proj, "):
        run(tiny_job(tiny_folder, "sparsity.keep=2", "sparsity.of=5"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def test_a_text_that_is_too_short_is_refused(tmp_path, tiny_folder):
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(DataError, match="evaluation text has"):
        run(tiny_job(tiny_folder, "evaluation.datasets=[text]", f"evaluation.path={short}"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def calibration_of(samples, seq_len, text_tokens):
    return Windows(torch.zeros(samples, seq_len, dtype=torch.long), TextOrigin("text", "hash", 0, text_tokens))


def test_windows_that_hold_more_tokens_than_their_text_are_warned_of():
    warning = overlap_warning(calibration_of(4, 32, 127))
    assert warning is not None
    assert "calibration.samples=4 windows of calibration.seq_len=32 are 128 tokens from a text of 127" in warning


@pytest.mark.parametrize("text_tokens", [128, None], ids=["enough", "not tokenised whole"])
def test_windows_that_fit_into_their_text_are_not(text_tokens):
    assert overlap_warning(calibration_of(4, 32, text_tokens)) is None


def test_a_run_logs_the_warning_once(tmp_path, tiny_folder, caplog):
    short = tmp_path / "short.txt"
    short.write_text("a few words, and then a few more of them " * 8)
    run(tiny_job(tiny_folder, "calibration=text", f"calibration.path={short}", "calibration.samples=99"), tmp_path)
    assert sum("they overlap" in message for message in caplog.messages) == 1


def test_a_metric_that_no_task_has_is_refused_before_pruning(lively_folder, tasks, tmp_path):
    with pytest.raises(DataError, match=r"evaluation\.metric=f1 is a metric of no task in evaluation\.tasks"):
        run(evaluated(lively_folder, tasks / "alone.yaml", "evaluation.metric=f1"), tmp_path)
