"""The registry of methods."""

import pytest

from statprune.core.methods import get_method


def test_an_unknown_method_names_the_choices():
    with pytest.raises(ValueError, match="wanda"):
        get_method("wnada")
