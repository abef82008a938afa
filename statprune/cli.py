"""The command: compose the config, run, print the summary."""

import functools
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from statprune.config.compose import override_problems, prepare_plugins
from statprune.config.naming import run_name
from statprune.runs.ledger import LEDGER, RUNNING, ledger, note, outcomes, preset_grid, print_sweep, swept_grids
from statprune.system.console import configure_logging
from statprune.system.distributed import rank, size, stop
from statprune.system.gpu_slots import take_gpu, visible_gpus

OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("visible_gpus", lambda: max(1, visible_gpus()), replace=True)
OmegaConf.register_new_resolver("gpus_per_job", lambda: min(1, visible_gpus()), replace=True)


@hydra.main(version_base="1.3", config_path="pkg://statprune.conf", config_name="config")
def main(composed: DictConfig) -> float | None:
    """Hydra's entry point for one job; what a sweeper minimises: the pruned perplexity, None where the job failed."""
    from statprune.runs.job import Outcome, carry_out, print_line, to_json  # slow to import: not for --help or a typo
    from statprune.runs.summary import print_summary

    job = HydraConfig.get()
    folder, is_sweep = Path(job.runtime.output_dir), job.mode is RunMode.MULTIRUN
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    configure_logging(composed.verbose is True, quiet=rank() > 0)
    if str(job.launcher._target_).endswith(".JoblibLauncher"):
        take_gpu()  # Slurm and Ray give a job its own
    if is_sweep:
        note(job.job.num, to_json(Outcome(folder, RUNNING)))
    outcome = carry_out(composed, folder, _bench(keeps=is_sweep), others_follow=is_sweep)
    if is_sweep:
        note(job.job.num, to_json(outcome))
    if rank() == 0 and is_sweep:
        print_line(outcome)
    elif rank() == 0 and outcome.record is not None:
        print_summary(outcome.record, folder)
    if outcome.reasons and not is_sweep:
        _fail(outcome.reasons if rank() == 0 else [])  # every process finds the same
    return outcome.metric


@functools.cache
def _bench(keeps: bool) -> Any:
    """The one workbench of this process, which outlives its jobs."""
    from statprune.runs.workbench import Workbench

    return Workbench(keeps and size() == 1)


def _fail(problems: list[str]) -> None:
    for problem in problems:
        print(f"statprune: {problem}", file=sys.stderr)
    raise SystemExit(1)


def cli() -> None:
    """Console script ``statprune``; ``python -m statprune`` is the same."""
    arguments = sys.argv[1:] = [quote_pattern(argument) for argument in sys.argv[1:]]
    given = get_args_parser().parse_known_args(arguments)[0]
    is_sweep = given.multirun
    prepare_plugins()
    asks = given.help or given.hydra_help or given.info or given.shell_completion
    if not asks:
        grid = preset_grid(given.overrides)
        if grid is not None and not given.cfg:
            is_sweep = True
            added = [quote_pattern(f"{key}={values}") for key, values in grid.items()]
            given.overrides = [*added, *given.overrides]
            _add_overrides(*added, "hydra.sweeper.params=null")
            sys.argv[1:1] = [] if given.multirun else ["--multirun"]
        problems = swept_grids(given.overrides) or override_problems(given.overrides, is_sweep)
        if not (problems or given.cfg):
            problems = folder_problems(given.overrides)
        if problems:
            _fail(problems if rank() == 0 else [])
    # torchrun, Slurm and kill end a process so: leave nothing temporary behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with _own_folder():
            if is_sweep and rank() == 0 and not (given.cfg or asks):
                _sweep()
            else:
                main()
    except KeyboardInterrupt:
        print("statprune: interrupted; start the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    stop()


def _add_overrides(*overrides: str, last: bool = False) -> None:
    """Put overrides beside those given: argparse takes no second group of them, behind an option."""
    given = get_args_parser().parse_known_args(sys.argv[1:])[0].overrides
    place = sys.argv.index(given[0], 1) + (len(given) if last else 0) if given else len(sys.argv)
    sys.argv[place:place] = overrides


def _sweep() -> None:
    """Run all jobs; whatever becomes of some, tell how each ended."""
    with ledger() as folder:
        quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        _add_overrides(f"+hydra.job.env_set.{LEDGER}='{quoted}'")
        try:
            main()
        finally:
            jobs = outcomes(folder)
            is_well = bool(jobs) and print_sweep(jobs)
    if not jobs:
        _fail([f"no job could tell in {folder} how it ended; their folders and logs say more"])
    if not is_well:
        raise SystemExit(1)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Give torchrun's other processes a folder each, which goes with them: the first one's holds the run."""
    if rank() == 0:
        yield
        return
    with tempfile.TemporaryDirectory(dir=".", prefix=".statprune-") as made:
        folder = os.path.relpath(made)  # short and plain, whatever the names above it
        _add_overrides(f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", last=True)  # whatever was given
        yield


def folder_problems(overrides: list[str]) -> list[str]:
    """Whether the folder that runs are written to can be made, in a sentence; Hydra itself ends in a traceback."""
    named = [override.partition("=")[2] for override in overrides if re.match(r"hydra\.(run|sweep)\.dir=", override)]
    folder = Path(named[-1].strip("'\"") if named else "outputs")
    if "${" in str(folder):
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return [
            f"the folder {folder} can't be written ({error.strerror}); run elsewhere, or give another hydra.run.dir"
        ]
    return []


def quote_pattern(argument: str) -> str:
    """``sparsity=2_4`` with the choice quoted: Hydra reads a bare 2_4 as the number 24."""
    if not argument.startswith("sparsity="):
        return argument
    return re.sub(r"(?<=[=,])(\d+_\d+)(?=,|$)", r"'\1'", argument)


if __name__ == "__main__":
    cli()
