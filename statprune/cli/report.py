"""``statprune report``: one page about a folder of runs."""

import argparse
from pathlib import Path

from statprune.errors import StatpruneError

EXAMPLE = "statprune report outputs/default -o report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("folder", type=Path, help="of runs, such as outputs/NAME; searched with everything below it")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page; FOLDER/report.html")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no record below the folder, or the page can't be written.
    """
    from statprune.analysis.report import report  # slow to import: not for --help

    output = options.output or options.folder / "report.html"
    try:
        report(options.folder, output)
    except OSError as error:
        raise StatpruneError(f"{output} can't be written ({error.strerror}); give another --output") from error
    print(output)
    return 0
