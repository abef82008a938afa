"""Candidates are read, tried and ranked; those that fit into the budget are run whole."""

import math

import pytest

from statprune.errors import ConfigError
from statprune.experiments.choose import (
    Candidate,
    Ranked,
    candidates_of,
    finalists_of,
    rank_candidates,
    read_candidates,
    too_slow,
    try_candidates,
)
from statprune.pruning.trial import Trial, Trials

SMALL = ("calibration.samples=4", "calibration.seq_len=32", "evaluation.max_windows=4", "evaluation.seq_len=32")
WANDA = {"Wanda": ["method=wanda", "compensation=none"]}


def ranked(label, error, seconds, remark=None):
    return Ranked(Candidate(label, (), None), error, seconds, remark)


def test_our_own_candidates_all_compose():
    assert all(each.problem is None for each in candidates_of(read_candidates(), ()))


def test_a_file_of_the_users_own_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("Mine: [method=ria, 'method.activation_power=0.7']\n")
    assert read_candidates(path) == {"Mine": ["method=ria", "method.activation_power=0.7"]}


@pytest.mark.parametrize("content", ["", "- a\n", "Mine: wanda\n", "Mine: [1]\n", "a: [b\n", "\xff"])
def test_a_file_that_names_no_candidates_is_a_sentence(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read_candidates(path)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        read_candidates(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["method=wanda", "compensation.groups=3", "+refinement=none", "experiment=main"])
def test_what_is_to_be_chosen_can_not_be_given(override):
    with pytest.raises(ConfigError, match="decides what is to be chosen"):
        candidates_of(WANDA, [override])


def test_an_override_that_is_wrong_for_all_is_told_once():
    with pytest.raises(ConfigError) as told:
        candidates_of(read_candidates(), ["calibration.sample=4"])
    assert len(told.value.problems) == 1 and "calibration.sample" in told.value.problems[0]


def test_a_candidate_that_can_not_have_the_pattern_is_out_with_its_reason():
    described = WANDA | {"Odd": ["method=sparsegpt", "method.block_size=6"], "Dense": ["method=dense"]}
    wanda, odd, dense = candidates_of(described, ["sparsity=2_4"])
    assert wanda.problem is None and "block_size" in odd.problem and "prunes nothing" in dense.problem


def test_candidates_are_ranked_by_error_and_those_that_are_out_come_last():
    names = ("worse", "better", "slow", "broken", "odd")
    ways = {
        "worse": Trial({"a": 0.3}),
        "better": Trial({"a": 0.2}),
        "slow": Trial({"a": 0.1}, given_up=True),
        "broken": Trial({"a": math.nan}),
    }
    trials = Trials(ways, (0,), {"worse": 1.0, "better": 2.0}, 0.1)
    candidates = [Candidate(name, (), None, "it is odd" if name == "odd" else None) for name in names]
    result = rank_candidates(candidates, trials)
    assert [own.candidate.label for own in result[:2]] == ["better", "worse"]
    assert {own.candidate.label: own.remark for own in result[2:]} == {
        "slow": "too slow for this budget",
        "broken": "its outputs are not finite",
        "odd": "it is odd",
    }


def test_the_best_two_that_fit_one_after_the_other_are_run_whole():
    order = [ranked("a", 0.1, 90.0), ranked("b", 0.2, 50.0), ranked("c", 0.3, 40.0), ranked("d", 0.4, 5.0)]
    assert [own.candidate.label for own in finalists_of(order, 100.0)] == ["a", "d"]
    assert [own.candidate.label for own in finalists_of(order, 60.0)] == ["b", "d"]
    assert finalists_of(order, 1.0) == []
    assert finalists_of([ranked("e", 0.1, 1.0, "it is odd")], 100.0) == []


def test_candidates_that_take_longer_than_what_is_left_are_too_slow():
    assert too_slow({"a": 3.0, "b": 5.0}, 4.0) == {"b"}


def test_a_trial_on_a_tiny_model_ranks_all_and_names_two(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    candidates = candidates_of(read_candidates(), [f"model.path={tiny_folder}", *SMALL])
    result = try_candidates(candidates, 600)
    assert len(result.ranked) == len(candidates) and len(result.finalists) == 2
    assert [own.error for own in result.ranked] == sorted(own.error for own in result.ranked)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_is_spent_leaves_no_candidate(tiny_folder):
    candidates = candidates_of(WANDA, [f"model.path={tiny_folder}", *SMALL])
    result = try_candidates(candidates, 1e-3)
    assert result.finalists == [] and result.ranked[0].remark == "too slow for this budget"
