"""Energy compensation: options that another one switches off."""

import pytest
import torch

from statprune.core.compensation import Compensation, Energy, one_of_two
from statprune.core.statistics import InputStatistics
from tests.helpers.matrices import random_matrix


@pytest.mark.parametrize("half", ["columns", "rows"])
def test_an_order_of_one_step_is_refused(half):
    with pytest.raises(ValueError, match=f"rows_first=true has no effect with compensation.{half}=false; leave one"):
        Energy(**{half: False}, rows_first=True)


def test_a_word_is_said_of_one_half_or_none():
    cases = {(True, True): (), (True, False): ("a",), (False, True): ("b",), (False, False): ("off",)}
    for (first, second), words in cases.items():
        assert one_of_two("a", first, "b", second) == words


def test_without_either_half_not_a_bit_changes():
    w, _, statistics = random_matrix()
    keep = w > 0
    assert torch.equal(Energy(columns=False, rows=False).apply(w, w * keep, keep, statistics)[0], w * keep)


def test_one_row_whose_energy_overflows_is_refused():
    w = torch.ones(3, 4) + torch.arange(4.0)
    w[1] *= 1e30
    with pytest.raises(ValueError, match="energy overflows"):
        Energy().apply(w, w, w > 0, InputStatistics(4))


def test_a_label_is_the_name_and_the_variant(monkeypatch):
    monkeypatch.setattr(Energy, "variant", lambda self: ("a", "b"))
    assert Compensation.label(Energy(), "own") == "own, a, b"
