"""``statprune compress``: store a sparse model smaller."""

import argparse

from statprune.cli.compression import add_folders, print_sizes
from statprune.cli.interrupts import interrupts
from statprune.cli.outputs import check_folder

EXAMPLE = "statprune compress outputs/default/RUN/model small"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    add_folders(parser, "folder of a saved model", "folder to write")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the folder exists or can't be written.
    """
    # slow to import: not for --help
    from statprune.model.compressed import compress_model
    from statprune.system.console import waiting

    check_folder(options.folder.parent)
    interrupts.raise_error()  # there is a folder to remove from now on
    with waiting(f"compressing {options.model}"):
        sizes = compress_model(options.model, options.folder)
    print_sizes(options.folder, sizes)
    return 0
