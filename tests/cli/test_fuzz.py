"""Random command lines: each is accepted, or refused in sentences."""

import os

import pytest
from hypothesis import HealthCheck, given, note, settings

from statprune.errors import LONGEST_SENTENCE, one_line
from statprune.system.plugin_files import PLUGINS
from tests.helpers.commands import problems_of
from tests.helpers.fuzz import command_lines

SECRET = "hf_0123456789"
EXAMPLES = "STATPRUNE_FUZZ"  # in the environment: how many random commands, of a new seed; make fuzz sets it


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory):
    """A folder that nothing is in, and an environment with a secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        patch.setenv("HF_TOKEN", SECRET)
        patch.setenv(PLUGINS, "")
        yield


def check(arguments: list[str]) -> bool:
    """Whether the command is accepted."""
    note(repr(arguments))
    problems = problems_of(*arguments)
    for problem in problems:
        line = one_line(problem)
        assert line and line.isprintable() and len(line) <= LONGEST_SENTENCE, problem
        assert "Traceback" not in line and SECRET not in line, problem
    return not problems


def fuzz(examples: int, derandomize: bool = True):
    """A check of so many random commands, the same ones each time or new ones."""
    relaxed = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(
        max_examples=examples, derandomize=derandomize, deadline=None, suppress_health_check=relaxed, print_blob=True
    )
    return chosen(given(command_lines())(check_only))


def check_only(arguments: list[str]) -> None:
    check(arguments)


def test_random_commands_are_accepted_or_refused_in_sentences():
    fuzz(60)()


@pytest.mark.long
def test_more_random_commands_are_accepted_or_refused_in_sentences():
    fuzz(300)()


@pytest.mark.skipif(EXAMPLES not in os.environ, reason="make fuzz runs this")
def test_new_random_commands_are_accepted_or_refused_in_sentences():
    fuzz(int(os.environ[EXAMPLES]), derandomize=False)()
