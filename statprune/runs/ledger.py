"""How the jobs of one command ended: each writes a note, and the process that started them reads all."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from statprune.system.files import replacing

LEDGER = "STATPRUNE_SWEEP"  # in every job's environment: the folder where it writes its note
SWEEPS = Path("outputs", ".cache", "sweeps")  # folders for the notes of sweeps


class JobState(StrEnum):
    """What became of a job."""

    FINISHED = "finished"
    SKIPPED = "skipped"
    FAILED = "failed"
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
    """

    folder: str
    state: JobState
    reasons: list[str]
    metric: float | None
    measured: str


@contextmanager
def ledger() -> Iterator[Path]:
    """A folder for the notes of a sweep's jobs, which is removed once they have been read."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = Path(SWEEPS, name).absolute()  # jobs may be started elsewhere
    try:
        folder.mkdir(parents=True)
    except OSError:  # runs are written elsewhere, and nothing can be written here
        folder = Path(tempfile.mkdtemp(prefix="statprune-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_note(number: int, note: JobNote) -> None:
    """Tell the process that started the sweep about job ``number``; each note replaces the one before."""
    if place := os.environ.get(LEDGER):
        # an error: that process has ended, and its folder went with it, so that nobody is left to tell
        with suppress(OSError), replacing(Path(place) / f"{number}.json") as file:
            file.write_text(json.dumps(asdict(note)), encoding="utf-8")


def read_notes(folder: Path) -> list[JobNote]:
    """The jobs' notes, in their order; a job that began and did not write how it ended has died."""
    notes = []
    for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem)):
        values = json.loads(path.read_text(encoding="utf-8"))
        note = JobNote(**(values | {"state": JobState(values["state"])}))
        if note.state is JobState.RUNNING:
            reason = "its process ended before the run did; start the same command again"
            note = replace(note, state=JobState.FAILED, reasons=[reason])
        notes.append(note)
    return notes


def print_sweep(notes: Sequence[JobNote]) -> bool:
    """Print a line per job, and then the failed ones with their reasons; returns whether none failed."""
    from rich.console import Console
    from rich.table import Table

    counts = {state: sum(note.state is state for note in notes) for state in JobState}
    shown = (JobState.FINISHED, JobState.SKIPPED, JobState.FAILED)
    title = ", ".join(f"{counts[state]} {state}" for state in shown if counts[state])
    table = Table(title=f"{len(notes)} runs: {title}")
    measured = sorted({note.measured for note in notes if note.metric is not None})  # an error is no perplexity
    table.add_column("run", overflow="fold")
    table.add_column(" or ".join(measured) or "perplexity", justify="right", overflow="fold")
    table.add_column("state", overflow="fold")
    for note in notes:
        metric = "" if note.metric is None else f"{note.metric:.4f}"
        metric += f" ({note.measured})" if metric and len(measured) > 1 else ""
        table.add_row(note.folder, metric, note.state.value)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)
    for note in notes:
        for reason in note.reasons if note.state is JobState.FAILED else ():
            print(f"statprune: {note.folder} failed: {reason}", file=sys.stderr)
    return counts[JobState.FAILED] == 0
