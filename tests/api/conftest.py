"""Opened tiny models."""

import pytest

from tests.helpers.loading import loaded
from tests.helpers.models import tiny_llama


@pytest.fixture
def tiny():
    return loaded(tiny_llama())


@pytest.fixture
def dense():
    return loaded(tiny_llama())
