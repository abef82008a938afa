"""Runs and sweeps: check the command line, hand it to Hydra, carry out each job, and tell how it ended."""

import functools
import inspect
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from statprune.cli.arguments import flags_parser, overrides_first
from statprune.cli.folders import no_empty_folders
from statprune.cli.hydra_errors import hydras_errors_in_sentences
from statprune.cli.interrupts import interrupts
from statprune.cli.problems import print_problems, report_problems
from statprune.config.compose import quote_pattern
from statprune.config.grids import count_jobs, preset_grid, swept_grids
from statprune.config.overrides import (
    folder_problems,
    named_plugins,
    output_folder,
    override_problems,
    searchpath_of,
)
from statprune.config.place import place_of, use_place
from statprune.config.resolvers import register_resolvers
from statprune.errors import ConfigError, StatpruneError
from statprune.runs.agent import AGENT
from statprune.runs.ledger import (
    LEDGER,
    SWEEPS,
    JobNote,
    JobState,
    ledger,
    planned_jobs,
    read_notes,
    why_untold,
    write_note,
    write_planned,
)
from statprune.runs.sweep_table import progress_of, tell
from statprune.system.console import configure_logging
from statprune.system.distributed import rank, size, stop
from statprune.system.files import owner_tag, remove_dead_folders
from statprune.system.gpu_slots import take_gpu
from statprune.system.plugin_files import use_plugin_files, use_what_can_be_imported

if TYPE_CHECKING:
    from statprune.runs.workbench import Workbench

register_resolvers()

_made: list[Path] = []  # folders of this command's jobs


def run_hydra(arguments: Sequence[str]) -> int:
    """Carry out a command in Hydra's grammar; returns its exit status.

    Args:
        arguments: overrides and Hydra's flags.
    """
    try:
        line = _read(arguments)
    except StatpruneError as error:
        return print_problems(str(error).splitlines())
    if line.asks_for_help:
        return _print_help() or (print_problems(line.plugin_problems) if line.plugin_problems else 0)
    line.start_preset_grid()
    with no_empty_folders(line.folders if rank() == 0 else [], _made):
        if problems := line.problems():
            return print_problems(problems)
        sys.argv[1:] = line.arguments  # where Hydra reads it
        with _own_folder(line):
            status = _sweep(line) if line.is_sweep and line.runs_jobs and rank() == 0 else _start_hydra()
    stop()
    return status


def command_problems(arguments: Sequence[str]) -> list[str]:
    """Everything wrong with a command in Hydra's grammar, in sentences; no job is started.

    Args:
        arguments: overrides and Hydra's flags.
    """
    try:
        line = _read(arguments)
    except StatpruneError as error:
        return str(error).splitlines()
    if line.asks_for_help:
        return line.plugin_problems
    line.start_preset_grid()
    return line.problems()


def _read(arguments: Sequence[str]) -> "_CommandLine":
    """The command line, from whose folders and plugins everything is composed from now on.

    Raises:
        StatpruneError: a flag, a folder or a plugin does not exist.
    """
    line = _CommandLine([quote_pattern(argument) for argument in overrides_first(arguments, flags_parser())])
    line.use_configurations()
    return line


@hydra.main(version_base="1.3", config_path="pkg://statprune.conf", config_name="config")
def job(composed: DictConfig) -> float | None:
    """Hydra's entry point for one job.

    Returns:
        What a sweeper minimises, `Outcome.metric`; None where the job failed or measured nothing.
    """
    from statprune.runs.job import carry_out  # slow to import: not for --help or a typo
    from statprune.runs.summary import print_summary

    of_hydra = HydraConfig.get()
    folder, is_sweep = Path(of_hydra.runtime.output_dir), of_hydra.mode is RunMode.MULTIRUN
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    if rank() == 0:
        _made.append(Path(of_hydra.runtime.output_dir))
    configure_logging(composed.verbose is True, quiet=rank() > 0)
    if str(of_hydra.launcher._target_).endswith(".JoblibLauncher"):
        take_gpu()  # Slurm and Ray give a job its own
    overrides = list(of_hydra.overrides.task)
    if is_sweep:
        write_note(of_hydra.job.num, JobNote(str(folder), JobState.RUNNING, [], None, "", overrides))
    interrupts.raise_error()
    outcome = carry_out(composed, folder, _bench(holds_model=is_sweep), others_follow=is_sweep)
    interrupts.raise_arrived()
    if is_sweep:
        write_note(of_hydra.job.num, replace(outcome.note, overrides=overrides))
        interrupts.wait()  # until the next job: Hydra and OmegaConf, which compose it, would swallow the error
    if rank() == 0 and is_sweep:
        print(progress_of(of_hydra.job.num, planned_jobs()) + outcome.line, flush=True)
    elif rank() == 0 and outcome.record is not None:
        print_summary(outcome.record, outcome.folder)
    if outcome.reasons and not is_sweep:
        raise SystemExit(print_problems(outcome.reasons))
    return outcome.metric


class _CommandLine:
    """Overrides and flags as Hydra will read them, and what is wrong with them.

    Attributes:
        arguments: what Hydra is given.
        is_sweep: several jobs are started.
        runs_jobs: jobs are started, and nothing is only printed.
        asks_for_help: our help is wanted, not Hydra's.
        plugin_problems: sentences about plugins that help leaves out.
    """

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        parsed, unknown = flags_parser().parse_known_args(arguments)
        if unknown:
            raise ConfigError([f"{flag} is no flag; statprune --hydra-help lists them" for flag in unknown])
        self._overrides: list[str] = parsed.overrides
        self.is_sweep: bool = parsed.multirun
        self.asks_for_help = bool(parsed.help)
        self.plugin_problems: list[str] = []
        self._asks_hydra = bool(parsed.hydra_help or parsed.info or parsed.shell_completion)
        self.runs_jobs = not (self.asks_for_help or self._asks_hydra or parsed.cfg)

    def use_configurations(self) -> None:
        """From now on compose as Hydra will: from the folders that the command names, with its plugins.

        Raises:
            StatpruneError: a folder or a plugin is not there.
        """
        parsed = flags_parser().parse_args(self.arguments)
        if parsed.config_path is not None and "://" not in parsed.config_path:
            # Hydra takes a relative one from this file's folder; the last of a flag counts
            self.arguments += ["--config-path", os.path.abspath(parsed.config_path)]
        place = place_of(parsed.config_name, parsed.config_path, parsed.config_dir)
        use_place(place.with_folders(searchpath_of(self._overrides), "hydra.searchpath in command-line"))
        if self.asks_for_help:
            self.plugin_problems = use_what_can_be_imported(named_plugins(self._overrides))
        else:
            use_plugin_files(named_plugins(self._overrides))

    def problems(self) -> list[str]:
        """Everything wrong with the command, in sentences."""
        if self._asks_hydra:
            return []
        problems = swept_grids(self._overrides) or override_problems(self._overrides, self.is_sweep)
        if not problems and self.runs_jobs:
            problems = self._agent_problems() or self._hub_problems() or folder_problems(self._overrides)
        return problems

    def _hub_problems(self) -> list[str]:
        """A sentence where the models of several runs would replace each other in one repository of the hub."""
        named = [override for override in self._overrides if override.lstrip("+").startswith("push_to_hub=")]
        if not named or not self.is_sweep or self.count_jobs() == 1:
            return []
        return [
            f"{named[-1]} names one repository, and -m or a preset's grid starts several runs, whose models would "
            "replace each other there; leave it out, and send the run that you want with statprune push RUN OWNER/NAME"
        ]

    def _agent_problems(self) -> list[str]:
        """A sentence where an agent of W&B's, which gives each command the id of one run, would start several."""
        if not (AGENT in os.environ and self.is_sweep) or self.count_jobs() == 1:
            return []
        return [
            f"a W&B agent ({AGENT} is set) gives this command the id of one run, and -m or a preset's grid starts "
            "several; put the values into the sweep's file, for a command of one run each"
        ]

    def count_jobs(self) -> int | None:
        """How many jobs the sweep has; None where only its sweeper knows."""
        return count_jobs(self._overrides)

    @property
    def folders(self) -> list[Path]:
        """Folders that the command may make, as far as they are known before its configuration is composed."""
        own = output_folder(self._overrides)
        return [SWEEPS, *([own] if own is not None else [])] if self.runs_jobs else []

    @property
    def runs_jobs_here(self) -> bool:
        """Whether jobs surely run in this process: no launcher is chosen, and no file that may choose one."""
        return not any(override.startswith(("hydra/launcher=", "experiment=")) for override in self._overrides)

    def add(self, *overrides: str, last: bool = False) -> None:
        """Put overrides beside the others: argparse accepts a single group of them."""
        others = flags_parser().parse_args(self.arguments).overrides
        place = len(self.arguments)
        if others:
            place = self.arguments.index(others[0]) + (len(others) if last else 0)
        self.arguments[place:place] = overrides

    def start_preset_grid(self) -> None:
        """Turn an experiment that is a grid into the overrides of a sweep, which then needs no ``-m``."""
        grid = preset_grid(self._overrides) if self.runs_jobs else None
        if grid is None:
            return
        added = [quote_pattern(f"{key}={values}") for key, values in grid.items()]
        self._overrides = [*added, *self._overrides]
        self.add(*added, "hydra.sweeper.params=null")
        if not self.is_sweep:
            self.arguments.insert(0, "--multirun")
        self.is_sweep = True


def _print_help() -> int:
    from statprune.cli.help import print_help
    from statprune.cli.main import VERBS

    def act() -> int:
        print_help({name: verb.help for name, verb in VERBS.items()})
        return 0

    return report_problems(act)


def _start_hydra() -> int:
    with hydras_errors_in_sentences(inspect.unwrap(job).__code__):
        job()
    return 0


def _sweep(line: _CommandLine) -> int:
    """Run all jobs; whatever becomes of some, tell how each ended."""
    notes: list[JobNote] = []
    all_well = False
    if line.runs_jobs_here:
        import statprune.runs.job  # noqa: F401 - slow to import, and nothing has to be cleaned up yet
    planned = line.count_jobs()
    with ledger() as folder:
        write_planned(folder, planned)
        quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        line.add(f"+hydra.job.env_set.{LEDGER}='{quoted}'")
        sys.argv[1:] = line.arguments
        interrupts.wait() if line.runs_jobs_here else interrupts.raise_error()
        try:
            _start_hydra()
        finally:
            notes = read_notes(folder, interrupts.arrived)
            untold = "" if notes else why_untold(folder)
            _made.extend(Path(note.folder) for note in notes)
            all_well = bool(notes) and tell(notes, planned, interrupts.arrived)
    interrupts.raise_arrived()
    if not notes:
        return print_problems([untold])
    return 0 if all_well else 1


@functools.cache
def _bench(holds_model: bool) -> "Workbench":
    """The one workbench of this process, which outlives its jobs."""
    from statprune.runs.workbench import Workbench

    return Workbench(holds_model and size() == 1)


@contextmanager
def _own_folder(line: _CommandLine) -> Iterator[None]:
    """Give torchrun's other processes a temporary folder each: the first one's holds the run."""
    if rank() == 0:
        if size() > 1:
            remove_dead_folders(Path())
        yield
        return
    interrupts.raise_error()  # there is a folder to remove from now on
    with tempfile.TemporaryDirectory(dir=".", prefix=f".statprune-{owner_tag()}-") as folder:
        relative = os.path.relpath(folder)  # short and plain, whatever the names above it
        line.add(f"hydra.run.dir={relative}", f"hydra.sweep.dir={relative}", last=True)  # after all others
        sys.argv[1:] = line.arguments
        yield
