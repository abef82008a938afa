"""Fixtures that ask a tiny model the tasks of lm-eval."""

from tests.helpers.tasks import lively_folder, measured, tasks

__all__ = ["lively_folder", "measured", "tasks"]
