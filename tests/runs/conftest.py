"""Runs that several modules look at, and fixtures that ask a tiny model the tasks of lm-eval."""

import pytest

from statprune.runs.pipeline import run
from tests.helpers.tasks import evaluated, lively_folder, measured, tasks

__all__ = ["lively_folder", "measured", "tasks"]


@pytest.fixture(scope="session")
def limited(lively_folder, tasks, tmp_path_factory):
    """The record of a run that asks the first five documents of one task, and measures no perplexity."""
    config = evaluated(lively_folder, tasks / "alone.yaml", "evaluation.limit=5", "evaluation.datasets=[]")
    return run(config, tmp_path_factory.mktemp("limited"))
