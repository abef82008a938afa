"""The table at the end of a sweep: what was swept and what came of it, printed and beside the runs."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from statprune.config.swept import short_names, swept_values
from statprune.runs.ledger import JobNote, JobState
from statprune.runs.wording import counted
from statprune.system.files import replacing

CSV, MARKDOWN = "sweep.csv", "sweep.md"
NUMBERS = (JobState.FINISHED, JobState.SKIPPED, JobState.FAILED, JobState.INTERRUPTED)


@dataclass(frozen=True)
class SweepTable:
    """How a sweep ended.

    Attributes:
        title: how many runs ended how.
        folder: that holds all the runs' folders.
        measured: names of the columns with numbers, which come before the last.
        columns: run, the keys that were swept, what was measured, state.
        rows: a cell for each column; measurements are numbers, or None.
        failures: a sentence for each reason of each run that failed.
    """

    title: str
    folder: Path
    measured: list[str]
    columns: list[str]
    rows: list[list[str | float | None]]
    failures: list[str]


def sweep_table(notes: Sequence[JobNote], planned: int | None, interrupted: bool) -> SweepTable:
    """The table of jobs that have ended.

    Args:
        notes: of the jobs that began.
        planned: jobs in all; None: nobody knows.
        interrupted: the sweep was stopped before its end.
    """
    folder = Path(os.path.commonpath([Path(note.folder).parent.absolute() for note in notes]))
    swept = swept_values([note.overrides for note in notes])
    measured = sorted({note.measured for note in notes if note.metric is not None})  # an error is no perplexity
    rows: list[list[str | float | None]] = []
    for number, note in enumerate(notes):
        metrics = [note.metric if note.measured == name else None for name in measured]
        values = [each[number] for each in swept.values()]
        run = str(Path(note.folder).absolute().relative_to(folder))
        rows.append([run, *values, *metrics, note.state.value])
    columns = ["run", *short_names(swept, swept).values(), *measured, "state"]
    failed = [note for note in notes if note.state is JobState.FAILED]
    failures = [f"{note.folder} failed: {reason}" for note in failed for reason in note.reasons]
    return SweepTable(_title(notes, planned, interrupted), folder, measured, columns, rows, failures)


def print_sweep(table: SweepTable) -> None:
    """Print the table, and then why runs failed."""
    from rich.console import Console
    from rich.table import Table

    print(table.title)  # as the table's own title it would be as narrow as the table
    printed = Table()
    for column in table.columns:
        printed.add_column(column, overflow="fold", justify="right" if column in table.measured else "left")
    for row in _texts(table):
        printed.add_row(*row)
    console = Console()
    console.print(printed) if console.is_terminal else Console(width=160).print(printed)
    for sentence in table.failures:
        print(f"statprune: {sentence}", file=sys.stderr)


def write_sweep(table: SweepTable) -> list[Path]:
    """Write the table into the folder of the runs, in place of that of the command before; returns the files.

    Raises:
        OSError: the folder can't be written.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([table.columns, *table.rows])
    files = [table.folder / CSV, table.folder / MARKDOWN]
    for path, text in zip(files, (buffer.getvalue(), _markdown(table)), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in files]


def tell(notes: Sequence[JobNote], planned: int | None, interrupted: bool) -> bool:
    """Print and write how a sweep ended; returns whether none of its runs failed.

    Args:
        notes: of the jobs that began, at least one.
        planned: jobs in all; None: nobody knows.
        interrupted: the sweep was stopped before its end.
    """
    table = sweep_table(notes, planned, interrupted)
    print_sweep(table)
    try:
        print("files:", ", ".join(map(str, write_sweep(table))))
    except OSError as error:
        print(f"statprune: the sweep's table can't be written ({error.strerror})", file=sys.stderr)
    return all(note.state is not JobState.FAILED for note in notes)


def progress_of(number: int, planned: int | None) -> str:
    """``[3 of 6]`` before what a job tells; empty where nobody knows how many there are.

    Args:
        number: of the job, from 0.
        planned: jobs in all.
    """
    return "" if planned is None or number >= planned else f"[{number + 1} of {planned}] "


def _title(notes: Sequence[JobNote], planned: int | None, interrupted: bool) -> str:
    counts = {state: sum(note.state is state for note in notes) for state in NUMBERS}
    finished, begun = counts.pop(JobState.FINISHED), len(notes)
    others = "".join(f", {count} {state}" for state, count in counts.items() if count)
    missing = planned is not None and planned > begun
    if interrupted:
        return f"interrupted: {f'{finished} of {planned} runs' if missing else _of(finished, begun)} finished{others}"
    runs = f"{begun} of {planned} runs" if missing else counted(begun, "run")
    return f"{runs}: {f'{finished} finished{others}' if finished else others.removeprefix(', ')}"


def _of(finished: int, begun: int) -> str:
    return f"{finished} of {counted(begun, 'run')}"


def _texts(table: SweepTable) -> list[list[str]]:
    """Cells as people read them."""
    return [
        ["" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.rows
    ]


def _markdown(table: SweepTable) -> str:
    name = table.folder
    with suppress(ValueError):
        name = name.relative_to(Path.cwd())
    rule = ["---:" if column in table.measured else "---" for column in table.columns]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, rule, *_texts(table))]
    lines = [f"# {name}", "", f"{table.title}; {datetime.now(UTC).isoformat(timespec='seconds')}", ""]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {sentence}" for sentence in table.failures)] if table.failures else []
    return "\n".join(lines) + "\n"
