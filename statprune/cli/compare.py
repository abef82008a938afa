"""``statprune compare``: what runs differ in, and by how much their numbers do."""

import argparse
from pathlib import Path

EXAMPLE = "statprune compare outputs/default/RUN outputs/default/OTHER"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs, two or more")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: the folders are not those of two or more different finished runs.
    """
    # slow to import: not for --help
    from statprune.analysis.compare import compare
    from statprune.analysis.compare_text import print_comparison, to_json

    comparison = compare(options.runs)
    if options.json:
        print(to_json(comparison))
    else:
        print_comparison(comparison)
    return 0
