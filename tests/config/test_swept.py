"""Changed keys in words."""

from pathlib import Path

import pytest

from statprune.config.swept import name_patterns, short_names, swept_values, with_words

KEYS = ("method.name", "method.alpha", "method.epsilon", "compensation.epsilon", "evaluation.name", "propagation")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method.alpha": 0.25}, "_alpha=0.25"),
        ({"method.alpha": 1e-05}, "_alpha=1e-05"),
        ({"method.epsilon": 1}, "_method.epsilon=1"),
        ({"evaluation.name": "zero_shot"}, "_evaluation=zero-shot"),
        ({"propagation": "a/b=c d"}, "_propagation=a-b-c-d"),
        ({"method.alpha": True}, "_alpha=true"),
        ({"method.alpha": None}, ""),
        ({"method.alpha": [1, 2]}, ""),
        ({"method.alpha": "x" * 25}, ""),
        ({"method.alpha": ""}, ""),
        ({"model.path": "x"}, ""),
        ({"method.name": "x"}, ""),
        ({"propagation": "x", "a.b": 1, "method.alpha": 2, "method.epsilon": 3}, "_alpha=2_method.epsilon=3_b=1"),
    ],
)
def test_changes_that_are_short_and_plain_are_words(changes, words):
    assert with_words("run_s0", changes, KEYS, "12345678") == f"run_s0{words}_12345678"


def test_words_that_make_a_name_too_long_are_left_out():
    assert with_words("x" * 160, {"method.alpha": 1, "propagation": "dense"}, KEYS, "12345678") == (
        "x" * 160 + "_alpha=1_12345678"
    )


@pytest.mark.parametrize(
    "other",
    ["run_s0_alpha=1_12345678", "run_s0_12345678", "run_s0_method.alpha=1_epsilon=2_12345678"],
)
@pytest.mark.parametrize("name", ["run_s0_alpha=1_12345678", "run_s0_12345678"])
def test_another_name_of_a_run_is_found(name, other, tmp_path):
    (tmp_path / other).mkdir()
    for wrong in ("run_s0_alpha=1_12345679", "run_s1_alpha=1_12345678", "run_s0_alpha_12345678", "run_s0"):
        (tmp_path / wrong).mkdir()
    found = {path.name for pattern in name_patterns(name) for path in tmp_path.glob(pattern)}
    assert found == {other}


def test_letters_that_a_pattern_would_read_are_taken_as_they_are(tmp_path):
    (tmp_path / "r_s0_12345678").mkdir()
    assert not [path for pattern in name_patterns("[r]_s0_12345678") for path in Path(tmp_path).glob(pattern)]


def test_a_name_without_a_hash_has_no_others():
    assert name_patterns("run_s0") == name_patterns("mine") == []


def test_a_key_that_ends_like_another_is_written_whole():
    keys = ["method.alpha", "calibration.seq_len", "evaluation.seq_len", "sparsity"]
    assert [*short_names(keys, keys).values()] == ["alpha", "calibration.seq_len", "evaluation.seq_len", "sparsity"]


def test_what_jobs_differ_in_is_what_was_swept():
    jobs = [
        ["experiment=smoke", "method=wanda", "sparsity='2_4'", '+method.new="1"'],
        ["experiment=smoke", "method=cvr", "sparsity='2_4'", "method.alpha=0.25", "method=ria"],
    ]
    assert swept_values(jobs) == {"method": ["wanda", "ria"], "method.new": ["1", ""], "method.alpha": ["", "0.25"]}


def test_a_single_job_sweeps_nothing():
    assert swept_values([["method=wanda"]]) == swept_values([]) == {}
