"""When a job is carried out, completed, skipped or refused."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from statprune.config.checks import parse_config
from statprune.config.naming import differing_keys
from statprune.config.schema import RunConfig
from statprune.errors import DamagedError, StatpruneError
from statprune.runs.inputs import TASKS, changes
from statprune.runs.own_model import lost, was_written
from statprune.runs.record import RunRecord
from statprune.runs.store import (
    MASKS,
    MODEL,
    RECORD,
    can_resume,
    claimed_hash,
    damaged_files,
    damaged_model,
    read_record,
)


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
        StatpruneError: its record is damaged, and may be that of another run.
    """
    try:
        record = None if config.settings.rerun else read_record(folder)
    except DamagedError:
        if not (folder / RECORD).is_file() or (claimed_hash(folder) or _begun_with(folder)) != config.hash():
            raise  # it may be another run's, which nobody asked to replace
        return Run(f"the record in {folder} is damaged: it is run again")
    if record is None:
        return Run()
    if record.config_hash != config.hash():
        keys = ", ".join(differing_keys(record.config, config.resolved())) or "none that this version knows"
        return Refused(
            f"{folder} holds a run with another configuration (differing keys: {keys}); "
            "give another name, or rerun=true to replace it"
        )
    if reason := _why_again(record, config, folder):
        return Run(reason)
    if not record.is_finished:
        if can_resume(record, folder):
            return Complete(record)
        return Run(f"{folder} was not evaluated to its end, and its pruned model is not there: it is run again")
    reason = _what_it_lacks(record, config, folder)
    return Run(f"{reason}: it is run again") if reason is not None else Skip(record)


def _begun_with(folder: Path) -> str | None:
    """The hash of the configuration that the folder's run began with, where its record is no JSON any more."""
    try:
        begun = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=True)
        values = begun if isinstance(begun, dict) else {}
        return parse_config({str(key): value for key, value in values.items()}).hash()
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, StatpruneError):
        return None


def _what_it_lacks(record: RunRecord, config: RunConfig, folder: Path) -> str | None:
    """What a finished run was to leave beside its record and is not there, in words, or None."""
    if config.settings.saves_model and not was_written(folder, MODEL, record):
        return f"{folder} is finished, but its model was not saved"
    if config.settings.saves_model and (problems := lost(folder, MODEL, record)):
        return f"the model saved in {folder} is damaged ({'; '.join(problems)})"
    if "masks" in config.tracking.artifacts and record.is_pruned and not (folder / MASKS).exists():
        return f"{folder} is finished, but its masks were not saved"
    return None


def _why_again(record: RunRecord, config: RunConfig, folder: Path) -> str | None:
    """Why a run of this very configuration is repeated; None: what it measured stands."""
    if problems := damaged_files(folder, record):
        return f"{folder} is damaged ({'; '.join(problems)}): it is run again"
    changed = changes(record.inputs, config)
    if not record.is_finished:  # its tasks are asked as they are now; everything else has been read already
        changed = {key: what for key, what in changed.items() if not key.startswith(TASKS)}
    return f"{'; '.join(changed.values())}: the run in {folder} is repeated" if changed else None


def with_whole_model(verdict: Verdict, folder: Path) -> Verdict:
    """The verdict where a pending run's pruned model is whole, or that it is run again; reads all of the model."""
    problems = damaged_model(folder, verdict.record) if isinstance(verdict, Complete) else []
    if not problems:
        return verdict
    return Run(f"the pruned model in {folder} is damaged ({'; '.join(problems)}): it is run again")
