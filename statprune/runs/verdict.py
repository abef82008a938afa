"""When a job is carried out, completed, skipped or refused."""

from dataclasses import dataclass
from pathlib import Path

from statprune.config.naming import differing_keys
from statprune.config.schema import RunConfig
from statprune.runs.own_model import was_written
from statprune.runs.record import RunRecord
from statprune.runs.store import MODEL, can_resume, read_record


@dataclass(frozen=True)
class Run:
    """The job has to be carried out.

    Attributes:
        because: a sentence on why a run that left a record is run again; None where there is no record.
    """

    because: str | None = None


@dataclass(frozen=True)
class Complete:
    """The job has been carried out but for its zero-shot evaluation.

    Attributes:
        record: the pending one.
    """

    record: RunRecord


@dataclass(frozen=True)
class Skip:
    """The job is finished.

    Attributes:
        record: of the run.
    """

    record: RunRecord


@dataclass(frozen=True)
class Refused:
    """The job can't be carried out in this folder.

    Attributes:
        reason: one sentence.
    """

    reason: str


Verdict = Run | Complete | Skip | Refused


def verdict_on(config: RunConfig, folder: Path) -> Verdict:
    """What is to be done in a folder.

    Args:
        config: the job's.
        folder: of its run.

    Raises:
        StatpruneError: its record is damaged.
    """
    record = None if config.settings.rerun else read_record(folder)
    if record is None:
        return Run()
    if record.config_hash != config.hash():
        keys = ", ".join(differing_keys(record.config, config.resolved())) or "none that this version knows"
        return Refused(
            f"{folder} holds a run with another configuration (differing keys: {keys}); "
            "give another name, or rerun=true to replace it"
        )
    if not record.is_finished:
        if can_resume(record, folder):
            return Complete(record)
        return Run(f"{folder} was not evaluated to its end, and its pruned model is not there: it is run again")
    if config.settings.save_model and not was_written(folder, MODEL, record):
        return Run(f"{folder} is finished, but its model was not saved: it is run again")
    return Skip(record)
