"""What Hydra itself refuses when it starts a job, as a sentence; it would print its own traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from types import TracebackType as Traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from statprune.cli.problems import print_problems
from statprune.config.composing import composing_problem
from statprune.errors import first_line
from statprune.system.disk import disk_problem

RAISES = "HYDRA_FULL_ERROR"  # in the environment: Hydra raises what it would print
# what Hydra and the launchers end in where a configuration does not fit, a folder or a log can't be written
OF_HYDRA = (HydraException, OmegaConfBaseException, OSError, ValueError, AssertionError)


@contextmanager
def hydras_errors_in_sentences(job: CodeType) -> Iterator[None]:
    """End the command with a sentence where Hydra fails outside of our job; what fails in the job is raised as it is.

    Args:
        job: code of the function that Hydra calls for each job.
    """
    before = os.environ.get(RAISES)
    os.environ[RAISES] = "1"
    try:
        yield
    except OF_HYDRA as error:
        if before is not None or _is_in(error.__traceback__, job):
            raise
        raise SystemExit(print_problems([_sentence(error)])) from error
    finally:
        if before is None:
            del os.environ[RAISES]


def _is_in(traceback: Traceback | None, job: CodeType) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_code is job:
            return True
        traceback = traceback.tb_next
    return False


def _sentence(error: Exception) -> str:
    refused = error.__cause__ if isinstance(error.__cause__, OSError) else error  # a log that can't be opened
    if isinstance(refused, OSError) and refused.filename is not None:
        return f"{refused.filename} can't be written ({refused.strerror}); make room, or give another hydra.run.dir"
    if (problem := disk_problem(refused, "the folder of the runs")) is not None:
        return problem
    if isinstance(error, HydraException | OmegaConfBaseException):
        return composing_problem(error)
    cause = f": {first_line(error.__cause__)}" if error.__cause__ is not None else ""
    return f"Hydra could not start the job ({first_line(error)}{cause}); look at the hydra. keys that are set"
