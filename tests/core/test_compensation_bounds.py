"""Energy compensation: options that another one switches off."""

import pytest

from statprune.core.compensation import Energy, one_of_two


@pytest.mark.parametrize("half", ["columns", "rows"])
def test_an_order_of_one_step_is_refused(half):
    with pytest.raises(ValueError, match=f"rows_first=true has no effect with compensation.{half}=false; leave one"):
        Energy(**{half: False}, rows_first=True)


def test_a_word_is_said_of_one_half_or_none():
    cases = {(True, True): (), (True, False): ("a",), (False, True): ("b",), (False, False): ("off",)}
    for (first, second), words in cases.items():
        assert one_of_two("a", first, "b", second) == words
