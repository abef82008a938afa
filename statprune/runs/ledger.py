"""Many jobs of one command: which they are, and how they ended."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.system.files import replacing

FINISHED, SKIPPED, FAILED, RUNNING = "finished", "skipped", "failed", "running"  # a job's states
LEDGER = "STATPRUNE_SWEEP"  # in every job's environment: the folder where it tells how it ended


def preset_grid(overrides: list[str]) -> dict[str, str] | None:
    """The grid that the chosen experiment starts by itself, without the keys given here; None where there is none."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        single = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        with initialize_config_module("statprune.conf", version_base="1.3"):
            hydra = compose("config", single, return_hydra_config=True).hydra
    except (HydraException, OmegaConfBaseException):
        return None  # what is wrong is told elsewhere
    if hydra.mode is not RunMode.MULTIRUN:
        return None
    given = {item.key_or_group for item in parsed}
    grid: Any = OmegaConf.to_container(hydra.sweeper.params) if hydra.sweeper.get("params") else {}
    return {key: str(values) for key, values in grid.items() if key not in given}


def swept_grids(overrides: list[str]) -> list[str]:
    """A sentence where several presets are listed of which one is a grid: its jobs would be lost."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return []  # what is wrong is told elsewhere
    return [
        f"{item.input_line} lists presets that are grids themselves; start them one after the other, without -m"
        for item in parsed
        if item.key_or_group == "experiment" and item.is_discrete_sweep()
        if any(preset_grid([f"experiment={choice}"]) is not None for choice in item.sweep_string_iterator())
    ]


@contextmanager
def ledger() -> Iterator[Path]:
    """A folder for the outcomes of a sweep's jobs, which goes when it has been read."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = Path("outputs", ".cache", "sweeps", name).absolute()  # jobs may be started elsewhere
    try:
        folder.mkdir(parents=True)
    except OSError:  # runs are written elsewhere, and nothing can be written here
        folder = Path(tempfile.mkdtemp(prefix="statprune-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def note(number: int, line: str) -> None:
    """Tell the process that started the sweep about job ``number``; each line replaces the one before."""
    if place := os.environ.get(LEDGER):
        # an error: it has ended, and its folder went with it, so that nobody is left to tell
        with suppress(OSError), replacing(Path(place) / f"{number}.json") as file:
            file.write_text(line, encoding="utf-8")


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """What the jobs told, in their order; one that began and told no end has died."""
    paths = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for job in found:
        if job["state"] == RUNNING:
            job |= {
                "state": FAILED,
                "reasons": ["its process ended before the run did; start the same command again"],
            }
    return found


def print_sweep(jobs: list[dict[str, Any]]) -> bool:
    """A line per job, failed ones last with their reasons; whether none failed."""
    from rich.console import Console
    from rich.table import Table

    failed = [job for job in jobs if job["state"] == FAILED]
    counts = {state: sum(job["state"] == state for job in jobs) for state in (FINISHED, SKIPPED, FAILED)}
    table = Table(title=f"{len(jobs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n))
    measured = sorted({job["of"] for job in jobs if job.get("metric") is not None})  # an error is no perplexity
    for name, place in (("run", "left"), (" or ".join(measured) or "perplexity", "right"), ("state", "left")):
        table.add_column(name, justify=place, overflow="fold")  # type: ignore[arg-type]
    for job in jobs:
        metric = job.get("metric")
        shown = "" if metric is None else f"{metric:.4f}" + (f" ({job['of']})" if len(measured) > 1 else "")
        table.add_row(job["folder"], shown, job["state"])
    console = Console()
    console.print(table) if console.is_terminal else Console(width=160).print(table)
    for job in failed:
        for reason in job["reasons"]:
            print(f"statprune: {job['folder']} failed: {reason}", file=sys.stderr)
    return not failed
