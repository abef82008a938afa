"""``statprune channels``: what Wanda's and CVR's scores make of a matrix's input channels."""

import argparse
from pathlib import Path

from statprune.cli.outputs import check_folder

EXAMPLE = "statprune channels outputs/default/RUN 15 mlp.down_proj -o pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("run", type=Path, help="folder of a finished run: its model, calibration and pattern are used")
    parser.add_argument("block", type=int, help="number of the decoder block, from 0")
    parser.add_argument("matrix", help="name of the matrix within the block, such as mlp.down_proj")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="of the files; RUN")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such run or matrix, its model or text is not there any more, or the pictures can't
            be written.
    """
    # slow to import: not for --help
    from statprune.analysis.channels import config_of, input_of_run
    from statprune.analysis.figures import score_outliers
    from statprune.core.scores import CvrOptions
    from statprune.model.location import model_name

    config = config_of(options.run)
    check_folder(options.output or options.run)  # the run's own folder may be another user's
    channels = input_of_run(config, options.run, options.block, options.matrix)
    name = f"{model_name(config.model.path)}, block {options.block}, {options.matrix}"
    own = config.method.options if config.method is not None else None
    cvr = own if isinstance(own, CvrOptions) else None
    print(*score_outliers(channels, options.output or options.run, name, config.pattern.value, cvr), sep="\n")
    return 0
