"""``statprune verify``: whether a run's saved model is what its record says."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.cli.interrupts import interrupts

if TYPE_CHECKING:
    from statprune.runs.saved_run import Finding

EXAMPLE = "statprune verify outputs/default/RUN"
VERDICTS = {True: "right", False: "WRONG", None: "unknown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of a run with save_model=true or compressed, or of its model"
    )
    parser.add_argument("--windows", type=int, default=2, help="whose losses are measured again, of each dataset; 2")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out; returns 1 where something is wrong.

    Raises:
        StatpruneError: the folder is that of no finished run with a saved model.
    """
    # slow to import: not for --help
    from statprune.errors import StatpruneError
    from statprune.runs.saved_run import saved_run
    from statprune.runs.verification import verify
    from statprune.system.console import waiting

    if options.windows < 1:
        raise StatpruneError(f"--windows {options.windows} is too few; give 1 or more")
    own = saved_run(options.folder)
    findings = []
    interrupts.raise_error()  # a compressed model has a dense copy to remove from now on
    with waiting(f"verifying {own.folder}"):
        for finding in verify(own, options.windows, options.trust_remote_code):
            findings.append(finding)
            if not options.json:
                _show(finding)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(_summary(findings))
    return 1 if any(finding.is_right is False for finding in findings) else 0


def _summary(findings: "Sequence[Finding]") -> str:
    """The last line: an exit with 0 does not say that everything was looked at."""
    wrong = [finding.check for finding in findings if finding.is_right is False]
    unknown = [finding.check for finding in findings if finding.is_right is None]
    parts = [f"{len(wrong)} found something wrong ({', '.join(wrong)})"] if wrong else []
    parts += [f"{len(unknown)} could not be made ({', '.join(unknown)})"] if unknown else []
    return f"of {len(findings)} checks {' and '.join(parts)}" if parts else f"all {len(findings)} checks are passed"


def _show(finding: "Finding") -> None:
    print(f"{VERDICTS[finding.is_right]:8}{finding.check:10} {finding.sentence}", flush=True)
