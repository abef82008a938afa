"""Plan the runs that tables stand on, and run those that are missing."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from statprune.config.checks import parse_config
from statprune.config.compose import compose, plain_values, quote_pattern
from statprune.config.naming import name_of
from statprune.config.overrides import named_plugins, override_problems
from statprune.config.table_spec import Cell, Place, Table, place_name
from statprune.errors import ConfigError, StatpruneError, interruption
from statprune.runs.place import place_of
from statprune.runs.verdict import Refused, Skip, verdict_on
from statprune.runs.wording import counted
from statprune.system.plugin_files import use_plugin_files

SWEEP_FOLDER = "outputs/${name}"  # hydra.sweep.dir of conf/config.yaml


@dataclass(frozen=True)
class Job:
    """A run that cells stand on.

    Attributes:
        overrides: as the first of its cells has them.
        config_hash: of its configuration.
        folder: where its record is, or will be.
        estimate: seconds it costs by its table's own estimate.
        seconds: what it cost; None while it is missing.
    """

    overrides: tuple[str, ...]
    config_hash: str
    folder: Path
    estimate: float
    seconds: float | None

    @property
    def is_done(self) -> bool:
        """Whether its record is there."""
        return self.seconds is not None


def jobs_of(tables: Sequence[Table], sweep: Sequence[str] = ()) -> dict[Cell, Job]:
    """The run of each cell of all tables; cells with the same overrides share theirs.

    Args:
        tables: whose cells.
        sweep: overrides of the sweep itself; hydra.sweep.dir says where its runs are.

    Raises:
        ConfigError: the overrides of a cell are wrong.
        StatpruneError: a folder holds another run.
    """
    jobs: dict[Cell, Job] = {}
    by_overrides: dict[frozenset[str], Job] = {}
    folders = [override.partition("=")[2] for override in sweep if override.startswith("hydra.sweep.dir=")]
    sweep_folder = folders[-1].strip("'\"") if folders else SWEEP_FOLDER
    for table in tables:
        for cell in table.cells:
            key = _in_any_order(cell.overrides)
            if key not in by_overrides:
                use_plugin_files(named_plugins(cell.overrides))
                by_overrides[key] = _checked_job(table, cell, sweep_folder)
            jobs[cell] = by_overrides[key]
    return jobs


def print_plan(tables: Iterable[Table], jobs: Mapping[Cell, Job]) -> None:
    """Print every place with its state, and what is still to be run."""
    for table in tables:
        print(f"{table.name}: {table.title} ({table.source or 'your own'}), {table.scale} scale")
        places: dict[Place, list[Job]] = {}
        for cell in table.cells:
            places.setdefault(cell.place, []).append(jobs[cell])
        for place, runs in places.items():
            done = sum(job.is_done for job in runs)
            state = "done" if done == len(runs) else f"{done} of {len(runs)} seeds done" if done else "missing"
            print(f"  {place_name(place)}: {state}")
    every = {job.config_hash: job for job in jobs.values()}.values()
    missing = missing_jobs(jobs)
    measured = [(job.seconds, job.estimate) for job in every if job.seconds is not None]
    ratio = sum(seconds for seconds, _ in measured) / sum(estimate for _, estimate in measured) if measured else 1.0
    cost = ratio * sum(job.estimate for job in missing)
    basis = "by the tables' own estimates"
    if measured:
        basis += f", times {ratio:.2f} as the {counted(len(measured), 'finished run')} took"
    print(
        f"{counted(len(every), 'run')}, {len(missing)} missing"
        + (f", about {_time(cost)} ({basis})" if missing else "")
    )


def missing_jobs(jobs: Mapping[Cell, Job]) -> list[Job]:
    """Jobs without a record, each once."""
    return list({job.config_hash: job for job in jobs.values() if not job.is_done}.values())


def run_jobs(jobs: Sequence[Job], launcher: str = "basic", sweep: Sequence[str] = (), to_stderr: bool = False) -> int:
    """Run jobs as one sweep, which skips what another process has finished in the meantime.

    Args:
        jobs: to run, at least one.
        launcher: choice of hydra/launcher.
        sweep: flags and overrides of the sweep itself.
        to_stderr: what the sweep prints goes there, where standard output is for something else.

    Returns:
        Exit status of the sweep.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "cells.json")
        file.write_text(json.dumps([job.overrides for job in jobs]), encoding="utf-8")
        overrides = ["hydra/sweeper=cells", f"hydra.sweeper.file={file}", f"hydra/launcher={launcher}"]
        overrides += [override for override in jobs[0].overrides if override.startswith("name=")]
        command = [sys.executable, "-m", "statprune", "-m", *sweep, *overrides]
        with subprocess.Popen(command, stdout=sys.__stderr__ if to_stderr else None) as process:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt as error:
                    # the sweep cleans up and tells how its jobs ended; it takes what a terminal sent to both for one
                    process.send_signal(interruption(error) or signal.SIGINT)


def _checked_job(table: Table, cell: Cell, sweep_folder: str) -> Job:
    try:
        return job_of(cell.overrides, cell.seconds, sweep_folder)
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        where, problems = place_name(cell.place), override_sentences(cell.overrides, error)
        raise ConfigError([f"table {table.name}, {where}: {problem}" for problem in problems]) from error


def override_sentences(overrides: Sequence[str], error: Exception) -> list[str]:
    """What is wrong with overrides that could not be composed, in our sentences, or else in the error's own."""
    return override_problems(overrides) or [str(error).splitlines()[0]]


def job_of(overrides: Sequence[str], estimate: float, sweep_folder: str = SWEEP_FOLDER) -> Job:
    """The run of a configuration.

    Args:
        overrides: that make it.
        estimate: seconds that it is thought to cost.
        sweep_folder: that its folder lies in, with interpolations of the configuration.

    Raises:
        ConfigError: the overrides are wrong.
        StatpruneError: its folder holds another run.
    """
    composed = compose(overrides)
    values = plain_values(composed.config)
    config = parse_config(values)
    folder = place_of(config, Path(composed.resolved(sweep_folder), name_of(values, composed.choices)))
    verdict = verdict_on(config, folder)
    if isinstance(verdict, Refused):
        raise StatpruneError(verdict.reason)
    seconds = sum(verdict.record.seconds.values()) if isinstance(verdict, Skip) else None
    return Job(tuple(map(quote_pattern, overrides)), config.hash(), folder, estimate, seconds)


def _in_any_order(overrides: Iterable[str]) -> frozenset[str]:
    """The last override of each key: their order among different keys changes nothing."""
    return frozenset({override.partition("=")[0]: override for override in overrides}.values())


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else counted(round(seconds / 60), "minute")
