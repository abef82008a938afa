"""How the jobs of one command ended: each writes a note, and the process that started them reads all."""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from statprune.errors import first_line
from statprune.runs.checksums import sealed, unsealed
from statprune.system.files import owner_tag, remove_dead_folders, replacing

log = logging.getLogger(__name__)
LEDGER = "STATPRUNE_SWEEP"  # in every job's environment: the folder where it writes its note
PLANNED = "planned.txt"  # in that folder: how many jobs there are
SWEEPS = Path("outputs", ".cache", "sweeps")  # folders for the notes of sweeps


class JobState(StrEnum):
    """What became of a job."""

    FINISHED = "finished"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RUNNING = "running"


@dataclass(frozen=True)
class JobNote:
    """What a job tells the process that started it.

    Attributes:
        folder: of the run.
        state: what became of it.
        reasons: one sentence for each thing that is wrong.
        metric: what a sweeper minimises; None where there is no such number.
        measured: what the metric is: perplexity or zero-shot error.
        overrides: of the job, as Hydra was given them.
    """

    folder: str
    state: JobState
    reasons: list[str]
    metric: float | None
    measured: str
    overrides: list[str] = field(default_factory=list)


@contextmanager
def ledger() -> Iterator[Path]:
    """A folder for the notes of a sweep's jobs, which is removed once they have been read."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{owner_tag()}"
    folder = Path(SWEEPS, name).absolute()  # jobs may be started elsewhere
    try:
        folder.mkdir(parents=True)
        remove_dead_folders(folder.parent)
    except OSError:  # runs are written elsewhere, and nothing can be written here
        folder = Path(tempfile.mkdtemp(prefix="statprune-"))
    try:
        yield folder
    finally:
        for place in (folder, _elsewhere(folder)):
            shutil.rmtree(place, ignore_errors=True)


def write_planned(folder: Path, jobs: int | None) -> None:
    """Tell the jobs how many they are; None: nobody knows."""
    if jobs is not None:
        with suppress(OSError):  # a full disk: nobody knows
            (folder / PLANNED).write_text(str(jobs), encoding="utf-8")


def planned_jobs() -> int | None:
    """How many jobs the sweep of this job has; None where nobody knows, or there is no sweep."""
    try:
        return int((Path(os.environ[LEDGER]) / PLANNED).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return None


def write_note(number: int, note: JobNote) -> None:
    """Tell the process that started the sweep about job ``number``; each note replaces the one before."""
    if not (place := os.environ.get(LEDGER)):
        return
    try:
        _write_note(Path(place), number, note)
    except FileNotFoundError:  # that process has ended, and its folder went with it, so that nobody is left to tell
        return
    except OSError as error:
        try:
            elsewhere = _elsewhere(Path(place))
            elsewhere.mkdir(mode=0o700, exist_ok=True)
            _write_note(elsewhere, number, note)
        except OSError:
            log.warning("how job %d ended can't be told in %s (%s)", number, place, error.strerror or first_line(error))


def _write_note(folder: Path, number: int, note: JobNote) -> None:
    metric = None if note.metric is None else repr(note.metric)  # JSON has no infinity
    with replacing(folder / f"{number}.json") as file:
        file.write_text(json.dumps(sealed(asdict(note) | {"metric": metric}), allow_nan=False), encoding="utf-8")


def _elsewhere(folder: Path) -> Path:
    """Where notes are written on this machine that find no room in their folder."""
    return Path(tempfile.gettempdir()) / f"statprune-notes-{folder.name}"


def why_untold(folder: Path) -> str:
    """Why no job could tell how it ended, as a sentence.

    Args:
        folder: of the notes.
    """
    try:
        probe = folder / "probe"
        probe.write_bytes(bytes(4096))  # a full disk may still have room for a name
        probe.unlink()
    except OSError as error:
        return (
            f"no job could tell how it ended: {folder} can't be written to ({error.strerror or first_line(error)}); "
            "make room there, or start the command in another folder"
        )
    return f"no job could tell in {folder} how it ended; their folders and logs say more"


def read_notes(folder: Path, interrupted: bool = False) -> list[JobNote]:
    """The jobs' notes, in their order; a job that began and did not write how it ended was interrupted, or has died.

    Args:
        folder: of the notes.
        interrupted: the jobs were stopped.
    """
    notes = []
    for note in _latest_notes(folder):
        if note.state is JobState.RUNNING:
            reason = "its process ended before the run did; start the same command again"
            state = JobState.INTERRUPTED if interrupted else JobState.FAILED
            note = replace(note, state=state, reasons=[reason])
        notes.append(note)
    return notes


def _latest_notes(folder: Path) -> list[JobNote]:
    """The last note of each job, in their order: of two, in both places, the one that tells how it ended."""
    latest: dict[int, JobNote] = {}
    for place in (folder, _elsewhere(folder)):
        for path in place.glob("*.json"):
            if path.stem.isdecimal():
                number, note = int(path.stem), _read_note(path)
                if number not in latest or note.state is not JobState.RUNNING:
                    latest[number] = note
    return [latest[number] for number in sorted(latest)]


def _read_note(path: Path) -> JobNote:
    try:
        values: Any = unsealed(json.loads(path.read_text(encoding="utf-8")), is_required=True)
        metric = None if values["metric"] is None else float(values["metric"])
        return JobNote(**(values | {"state": JobState(values["state"]), "metric": metric}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"how it ended can't be read ({first_line(error)}); start the same command again"
        return JobNote(f"job {path.stem}", JobState.FAILED, [reason], None, "")
