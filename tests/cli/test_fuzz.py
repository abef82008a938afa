"""Random command lines: each is accepted, or refused in sentences."""

import os

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from statprune.cli.run import command_problems
from statprune.config.place import own_place, use_place
from statprune.errors import LONGEST_SENTENCE, one_line
from statprune.system.plugin_files import PLUGINS
from tests.helpers.fuzz import command_lines

RELAXED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder that nothing is in, whatever earlier commands of this process chose."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv(PLUGINS, "")
    yield tmp_path
    use_place(own_place())


def check(arguments: list[str]) -> bool:
    """Whether the command is accepted."""
    os.environ[PLUGINS] = ""
    note(repr(arguments))
    problems = command_problems(arguments)
    for problem in problems:
        line = one_line(problem)
        assert line and "\n" not in line and len(line) <= LONGEST_SENTENCE and line.isprintable(), problem
        assert "Traceback" not in line and "hf_0123456789" not in line, problem
    return not problems


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=RELAXED, database=None)
@given(arguments=command_lines())
def test_a_random_command_is_accepted_or_refused_in_sentences(workplace, arguments):
    check(arguments)
