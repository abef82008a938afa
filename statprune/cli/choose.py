"""``statprune choose``: which way of pruning suits a model and a pattern."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.config.place import place_of, use_place
from statprune.errors import ConfigError

if TYPE_CHECKING:
    from statprune.analysis.choice import TriedCandidate
    from statprune.experiments.choose import Ranked

EXAMPLE = "statprune choose model.path=MODEL sparsity=2_4 budget=30"
MINUTES = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"of the run, without its method; and budget=MINUTES for everything ({MINUTES:g})",
    )
    parser.add_argument("--candidates", type=Path, metavar="FILE", help="YAML of overrides by label, in place of ours")
    parser.add_argument("--config-dir", metavar="FOLDER", help="with configurations of your own, beside ours")
    parser.add_argument("--no-runs", action="store_true", help="only try them on some blocks, and run none whole")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out; returns 1 where a whole run failed.

    Raises:
        StatpruneError: the candidates can't be tried, or none fits into the budget.
    """
    minutes, overrides = read_budget(options.overrides)
    use_place(place_of(None, None, options.config_dir))

    # slow to import: not for --help
    from statprune.analysis.choice import choice_between
    from statprune.analysis.choice_text import print_choice, to_json
    from statprune.cli.interrupts import interrupts
    from statprune.experiments.choose import candidates_of, jobs_of_finalists, read_candidates, try_candidates
    from statprune.experiments.reproduce import run_jobs

    described = read_candidates(options.candidates) if options.candidates else read_candidates()
    candidates = candidates_of(described, overrides)
    interrupts.raise_error()
    tried = try_candidates(candidates, 60 * minutes)
    jobs = [] if options.no_runs else jobs_of_finalists(tried.finalists)
    missing = [job for job in jobs if not job.is_done]
    flags = ["--config-dir", options.config_dir] if options.config_dir else []
    status = run_jobs(missing, sweep=flags, to_stderr=True) if missing else 0
    if status:
        return status
    folders = {own.candidate.label: job.folder for own, job in zip(tried.finalists, jobs, strict=False)}
    choice = choice_between([_tried(own) for own in tried.ranked], folders, tried.blocks, tried.spent)
    if options.json:
        print(to_json(choice))
    else:
        print_choice(choice)
    return 0


def _tried(own: "Ranked") -> "TriedCandidate":
    from statprune.analysis.choice import TriedCandidate
    from statprune.experiments.choose import NAME

    error = own.error if math.isfinite(own.error) else None
    overrides = tuple(override for override in own.candidate.overrides if override != NAME)
    return TriedCandidate(own.candidate.label, overrides, error, own.seconds, own.remark)


def read_budget(arguments: list[str]) -> tuple[float, list[str]]:
    """The minutes, and the overrides without them.

    Raises:
        ConfigError: the budget is no positive number.
    """
    minutes, overrides = MINUTES, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "budget":
            overrides.append(argument)
            continue
        try:
            minutes = float(value)
        except ValueError:
            minutes = 0.0
        if not 0 < minutes < float("inf"):
            raise ConfigError([f"budget={value} is no number of minutes; give one such as budget={MINUTES:g}"])
    return minutes, overrides
