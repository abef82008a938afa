"""``statprune inspect``: what is in a checkpoint, ours or another tool's."""

import argparse
import sys
from pathlib import Path

from statprune.cli.outputs import check_folder

EXAMPLE = "statprune inspect outputs/default/RUN/model --against BASE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder, .gguf file, hub id, or pkg://package/file")
    parser.add_argument("--against", metavar="DENSE", help="the model that it was made from, for what has changed")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="draw inspection.png and .pdf there")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, tensor by tensor")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: a checkpoint is missing or damaged, or the picture can't be written.
    """
    check_folder(options.picture, "--picture")
    # slow to import: not for --help
    from statprune.analysis.inspection_text import print_inspection, to_json
    from statprune.evaluation.inspection import inspect_checkpoint
    from statprune.system.console import progress

    with progress("tensors in percent", 100) as done:
        inspection = inspect_checkpoint(
            options.model, options.against, lambda number, count: done(100 * number // count)
        )
    if options.json:
        print(to_json(inspection))
    else:
        print_inspection(inspection)
    if options.picture is not None:
        from statprune.analysis.inspection_figure import draw_inspection

        print(*draw_inspection(inspection, options.picture), sep="\n", file=sys.stderr)
    return 0
