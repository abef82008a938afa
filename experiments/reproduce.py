"""Run what a table lacks, and build it: python -m statprune.experiments.reproduce table=ppl [dry_run=true]."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from statprune.analysis.collect import collect
from statprune.analysis.spec import Cell, Table, load_table, place_name, table_names
from statprune.analysis.table_figures import draw_table
from statprune.analysis.tables import Built, build, to_markdown, write_tables

from statprune.cli import quote_pattern
from statprune.config.compose import override_problems, prepare_plugins
from statprune.config.naming import plain_values, run_name
from statprune.config.schema import parse_config
from statprune.errors import ConfigError, StatpruneError
from statprune.runs.job import finished_record

USAGE = """python -m statprune.experiments.reproduce table=NAME[,NAME...]|all [key=value ...]

  table      {tables}, or the path of a YAML like those in experiments/tables
  scale      bundled (the bundled model and data, no network; the default) or paper
  models     [labels of the scale's models]; all of the table's
  dry_run    true: list the cells and what they would cost, and stop
  launcher   joblib, submitit_slurm, ray: as hydra/launcher
  sweep      [for the sweep itself, such as hydra.launcher.partition=gpu]
  output     folder of the tables' files; outputs/tables/SCALE
  overrides  [for all cells, such as device=cuda]
"""


@dataclass
class Request:
    """What the command was given."""

    table: str | None = None
    scale: str = "bundled"
    models: list[str] | None = None
    dry_run: bool = False
    launcher: str = "basic"
    sweep: list[str] | None = None
    output: str | None = None
    overrides: list[str] | None = None


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


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(USAGE.format(tables=", ".join(table_names())))
        return 0
    try:
        return reproduce(_request(given))
    except ConfigError as error:
        problems = error.problems
    except StatpruneError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"reproduce: {problem}", file=sys.stderr)
    return 1


def reproduce(request: Request) -> int:
    """List, run and build; returns 1 where a run failed.

    Raises:
        StatpruneError: the tables can't be read, run or built.
    """
    names = table_names() if request.table == "all" else str(request.table).split(",")
    tables = [load_table(name, request.scale, request.models, request.overrides) for name in names]
    prepare_plugins()
    jobs = jobs_of(*tables, sweep=request.sweep or [])
    _print_plan(tables, jobs)
    if request.dry_run:
        return 0
    missing = {job.config_hash: job for job in jobs.values() if not job.is_done}
    status = _run(list(missing.values()), request) if missing else 0
    folder = Path(request.output or f"outputs/tables/{request.scale}")
    frame = records(jobs)
    for table in tables:
        built = built_from(jobs, table, frame)
        print(to_markdown(built))
        print("files:", ", ".join(map(str, write_tables(built, folder) + draw_table(built, folder))))
    return status


def jobs_of(*tables: Table, sweep: Sequence[str] = ()) -> dict[Cell, Job]:
    """The run of each cell of all tables; cells with the same overrides share theirs, since composing is slow.

    Args:
        tables: whose cells.
        sweep: overrides of the sweep itself; hydra.sweep.dir says where its runs are.

    Raises:
        ConfigError: the overrides of a cell are wrong.
    """
    jobs: dict[Cell, Job] = {}
    by_overrides: dict[frozenset[str], Job] = {}
    table, cell = tables[0], tables[0].cells[0]
    folders = [override for override in sweep if override.startswith("hydra.sweep.dir=")]
    try:
        with initialize_config_module("statprune.conf", version_base="1.3"):
            for table in tables:
                for cell in table.cells:
                    key = _in_any_order(cell.overrides)
                    if key not in by_overrides:
                        by_overrides[key] = _job(cell, folders)
                    jobs[cell] = by_overrides[key]
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        problems = override_problems([quote_pattern(override) for override in cell.overrides]) or [
            str(error).splitlines()[0]
        ]
        where = place_name(cell.place)
        raise ConfigError([f"table {table.name}, {where}: {problem}" for problem in problems]) from error
    return jobs


def built_from(jobs: dict[Cell, Job], table: Table, frame: pd.DataFrame) -> Built:
    """The table as far as its runs are in ``records``.

    Raises:
        StatpruneError: its cells can't stand in one table.
    """
    return build(table, {cell: jobs[cell].config_hash for cell in table.cells}, frame)


def records(jobs: dict[Cell, Job]) -> pd.DataFrame:
    """All records in the experiments' folders, as ``collect`` gives them."""
    folders = {job.folder.parent for job in jobs.values()}
    return pd.concat([collect(folder).frame for folder in sorted(folders)], ignore_index=True)


def _request(arguments: list[str]) -> Request:
    known = {field.name for field in fields(Request)}
    problems = [
        f"{argument} is not understood; write key=value with one of {', '.join(sorted(known))}"
        for argument in arguments
        if argument.partition("=")[0] not in known or "=" not in argument
    ]
    if problems:
        raise ConfigError(problems)
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(arguments))
    for key in ("models", "overrides", "sweep"):
        if isinstance(given.get(key), str):
            given[key] = [given[key]]
    if not given.get("table"):
        raise ConfigError([f"table is missing; choose from {', '.join(table_names())}, or all"])
    if not isinstance(given.get("dry_run", False), bool):
        raise ConfigError([f"dry_run={given['dry_run']} is neither true nor false; write dry_run=true"])
    return Request(**given)


def _in_any_order(overrides: tuple[str, ...]) -> frozenset[str]:
    """The last override of each key: their order among different keys changes nothing."""
    return frozenset({override.partition("=")[0]: override for override in overrides}.values())


def _job(cell: Cell, folders: list[str]) -> Job:
    overrides = [quote_pattern(override) for override in cell.overrides]
    composed = compose("config", [*overrides, *folders], return_hydra_config=True)
    folder = Path(composed.hydra.sweep.dir, run_name(_root_=composed))
    config = parse_config(plain_values(composed))
    record = finished_record(config, folder)
    seconds = sum(record["seconds"].values()) if record is not None and "pending" not in record else None
    return Job(tuple(overrides), config.hash(), folder, cell.seconds, seconds)


def _print_plan(tables: list[Table], jobs: dict[Cell, Job]) -> None:
    """Every cell with its state, and what is still to be run."""
    for table in tables:
        print(f"{table.name}: {table.title} ({table.source or 'your own'}), {table.scale} scale")
        places: dict[Any, list[Job]] = {}
        for cell in table.cells:
            places.setdefault(cell.place, []).append(jobs[cell])
        for place, runs in places.items():
            done = sum(job.is_done for job in runs)
            state = "done" if done == len(runs) else f"{done} of {len(runs)} seeds done" if done else "missing"
            print(f"  {place_name(place)}: {state}")
    every = {job.config_hash: job for job in jobs.values()}.values()
    missing = [job for job in every if not job.is_done]
    measured = [(job.seconds, job.estimate) for job in every if job.seconds is not None]
    ratio = sum(seconds for seconds, _ in measured) / sum(estimate for _, estimate in measured) if measured else 1.0
    cost = ratio * sum(job.estimate for job in missing)
    basis = "by the tables' own estimates"
    if measured:
        basis += f", times {ratio:.2f} as the {len(measured)} finished runs took"
    print(f"{len(every)} runs, {len(missing)} missing" + (f", about {_time(cost)} ({basis})" if missing else ""))


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"


def _run(jobs: list[Job], request: Request) -> int:
    """One sweep over the jobs, which skips what another process has finished meanwhile."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "cells.json")
        file.write_text(json.dumps([job.overrides for job in jobs]), encoding="utf-8")
        command = [sys.executable, "-m", "statprune", "-m", "hydra/sweeper=cells", f"hydra.sweeper.file={file}"]
        command += [f"hydra/launcher={request.launcher}"]
        command += [override for override in jobs[0].overrides if override.startswith("name=")]
        command += request.sweep or []
        return subprocess.run(command, env=os.environ).returncode


if __name__ == "__main__":
    sys.exit(main())
