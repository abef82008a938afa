"""``statprune report``: one page about a folder of runs."""

import argparse
from pathlib import Path

from statprune.cli.outputs import check_file, check_folder
from statprune.errors import StatpruneError

EXAMPLE = "statprune report outputs/default -o report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("folder", type=Path, help="of runs, such as outputs/NAME; searched with everything below it")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page; FOLDER/report.html")
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="write the page's figures there too, as PNG and PDF"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the page's table there too")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no record below the folder, or the page can't be written.
    """
    from statprune.analysis.report import report  # slow to import: not for --help

    output = options.output or options.folder / "report.html"
    if options.folder.is_dir():  # else there is something else to say
        check_file(output)
    check_folder(options.figures, "--figures")
    check_file(options.csv, "--csv")
    try:
        report(options.folder, output, options.figures, options.csv)
    except OSError as error:
        places = [path for path in (output, options.figures, options.csv) if path and str(error.filename) in str(path)]
        place = places[0] if places else error.filename
        raise StatpruneError(f"{place} can't be written ({error.strerror}); give another path") from error
    print(output)
    return 0
