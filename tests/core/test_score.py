"""Functions made scores: what they are called with, and what is told of them."""

from dataclasses import dataclass

import pytest
import torch

from statprune.core.patterns import Group
from statprune.core.score import SCORES, NoOptions, Score, score
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import PluginError
from tests.helpers.matrices import random_matrix


@dataclass(frozen=True)
class Power:
    """Options of a score."""

    power: float = 2.0


def powered(weight, statistics, options: Power):
    """Powers of the weights."""
    return weight.abs() ** options.power * statistics.norm


def plain(weight, statistics):
    """The weights and the inputs' means."""
    return weight.abs() + statistics.mean.abs()


@pytest.fixture
def registered(monkeypatch):
    """What is registered in the test, by name; nothing of it stays."""
    made = {}
    monkeypatch.setattr(SCORES, "register", lambda name, value: made.setdefault(name, value))
    return made


def test_a_score_with_options_gets_them_or_their_defaults(registered):
    w, _, statistics = random_matrix()
    made = score()(powered)
    assert registered == {"powered": made} and made.options is Power
    assert torch.equal(made(w, statistics), w.abs() ** 2 * statistics.norm)
    assert torch.equal(made(w, statistics, Power(3.0)), w.abs() ** 3 * statistics.norm)


def test_a_score_without_options_is_called_without_them(registered):
    w, _, statistics = random_matrix()
    made = score("other")(plain)
    assert registered == {"other": made} and made.options is NoOptions
    assert torch.equal(made(w, statistics), w.abs() + statistics.mean.abs())
    assert (made.__qualname__, made.__doc__) == ("plain", plain.__doc__)


@pytest.mark.parametrize("function", [plain, powered])
def test_a_score_needs_moments_and_compares_within_rows_unless_it_says_otherwise(registered, function):
    made = score()(function)
    assert (made.needs, made.group) == (StatisticsKind.MOMENTS, Group.row)
    other = score("other", needs=StatisticsKind.GRAM, group=Group.matrix)(function)
    assert (other.needs, other.group) == (StatisticsKind.GRAM, Group.matrix)
    assert (other.__module__, other.__qualname__, other.__doc__) == (__name__, function.__qualname__, function.__doc__)


def test_a_score_made_by_hand_has_the_same_defaults():
    made = Score(lambda weight, statistics, options: (weight, options))
    assert (made.needs, made.options, made.group) == (StatisticsKind.MOMENTS, NoOptions, Group.row)
    assert made(torch.ones(1), InputStatistics(1))[1] == NoOptions()


def no_dataclass(weight, statistics, options: int):
    return weight


def no_annotation(weight, statistics, options):
    return weight


def one_parameter(weight):
    return weight


def four_parameters(weight, statistics, more, options: Power):
    return weight


def an_instance(weight, statistics, options: Power()):
    return weight


@pytest.mark.parametrize("function", [no_dataclass, no_annotation, one_parameter, four_parameters, an_instance])
def test_a_function_with_other_parameters_is_refused(registered, function):
    with pytest.raises(PluginError, match=f"the score {function.__qualname__} needs the parameters"):
        score()(function)
    assert not registered


def test_what_is_no_score_is_refused_by_the_registry():
    with pytest.raises(PluginError, match="it is no score"):
        SCORES.register("not_a_score", powered)


def test_the_names_of_our_scores_and_what_they_need():
    assert {name: (SCORES.get(name).needs, SCORES.get(name).group) for name in SCORES.names()[:6]} == {
        "magnitude": (StatisticsKind.NONE, Group.matrix),
        "wanda": (StatisticsKind.MOMENTS, Group.row),
        "ria": (StatisticsKind.MOMENTS, Group.row),
        "cvr": (StatisticsKind.MOMENTS, Group.row),
        "stade": (StatisticsKind.MOMENTS, Group.row),
        "stade_w": (StatisticsKind.MOMENTS, Group.row),
    }
