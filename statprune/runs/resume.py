"""Take up a run that has pruned its model and lacks its zero-shot evaluation."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.errors import DamagedError, KeptModelError, ModelError, first_line
from statprune.evaluation.accuracy import Answers
from statprune.model.loading import LoadedModel, ModelSource, open_model
from statprune.runs.checksums import damage
from statprune.runs.context import RunContext
from statprune.runs.measure import Unfinished
from statprune.runs.prepare import find_tasks, rehearsed
from statprune.runs.record import RunRecord
from statprune.runs.store import DOCUMENTS, UNSAVED, read_dense_answers, read_reports
from statprune.system.console import waiting
from statprune.system.distributed import gathered, rank
from statprune.system.timing import phase

if TYPE_CHECKING:  # lm-eval takes seconds to import, and most runs need none of it
    from statprune.evaluation.zero_shot import ZeroShot

log = logging.getLogger(__name__)


def reopened(context: RunContext, pending: RunRecord) -> Unfinished:
    """A pending run at the stage where its pruned model is asked.

    Args:
        context: the run.
        pending: its record, in every process.

    Raises:
        StatpruneError: the tasks can't be run.
        KeptModelError: the pruned model can't be opened.
    """
    if pending.pending is None or pending.pending.model is None:
        raise ValueError("the record is not pending, or its pruned model was not saved")
    folder = gathered(context.folder.absolute())[0]  # only the first process's folder is the run's
    pruned = folder / pending.pending.model
    context.seconds.update(pending.seconds)
    if rank() == 0:
        context.reports.extend(read_reports(folder))
    suite = find_tasks(context)
    log.info("evaluating the pruned model in %s, which is not pruned again", pruned)
    source = replace(context.config.model.source, path=str(pruned), revision=None)
    with phase(context.seconds, "load"):
        loaded = _reopened_model(context, source)
    context.cleanup.callback(loaded.close)
    zero_shot = rehearsed(context, suite, loaded)
    if zero_shot is None:
        raise ValueError("a pending run has tasks")
    dense = _dense_answers(context, folder, pending, zero_shot)
    return Unfinished(pending, loaded.model, zero_shot, dense, pruned if rank() == 0 else None, memory=None)


def _dense_answers(context: RunContext, folder: Path, pending: RunRecord, zero_shot: "ZeroShot") -> Answers:
    """The dense model's answers from the run's files; anew where they are not whole or the tasks were changed."""
    before = pending.zero_shot
    if before is None or before.protocol.requests_sha256 != zero_shot.plan.protocol.requests_sha256:
        log.info("the tasks were changed: the dense model is evaluated again")
        return _measured_again(context, zero_shot)
    answers = None
    if rank() == 0:  # one reads, so that all do the same
        try:
            if problems := damage(folder, {name: value for name, value in pending.files.items() if name == DOCUMENTS}):
                raise DamagedError(problems[0])
            answers = read_dense_answers(folder, before)
        except (OSError, ValueError, KeyError) as error:
            log.info("the dense model's answers can't be read (%s): it is evaluated again", first_line(error))
    answers = gathered(answers)[0]
    return answers if answers is not None else _measured_again(context, zero_shot)


def _reopened_model(context: RunContext, source: ModelSource) -> LoadedModel:
    """The pruned model.

    Raises:
        KeptModelError: a process can't open it; all processes raise it.
    """
    loaded, problem = None, None
    try:
        loaded = _opened(context, source)
    except ModelError as error:
        problem = str(error)
    problems = [each for each in gathered(problem) if each is not None]
    if loaded is None or problems:
        if loaded is not None:
            loaded.close()
        raise KeptModelError(problems[0])
    return loaded


def _opened(context: RunContext, source: ModelSource) -> LoadedModel:
    settings = context.config.settings
    with waiting(f"loading {source.path}"):
        return open_model(
            source, str(context.device), settings.offload.value, context.folder / UNSAVED, settings.converted_models
        )


def _measured_again(context: RunContext, zero_shot: "ZeroShot") -> Answers:
    loaded = _opened(context, context.config.model.source)
    try:
        return zero_shot.measure(loaded.model, "dense")
    finally:
        loaded.close()
