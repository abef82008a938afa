"""What does not fit the model is an error before any expensive step."""

import pytest

from statprune.errors import DataError, ModelError
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job


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
