"""``statprune decompress``: give a compressed model its zeros back."""

import argparse

from statprune.cli.compression import add_folders, print_sizes
from statprune.cli.interrupts import interrupts
from statprune.cli.outputs import check_folder

EXAMPLE = "statprune decompress small dense"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    add_folders(parser, "folder that statprune compress has written", "dense folder to write")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the folder exists or can't be written.
    """
    # slow to import: not for --help
    from statprune.model.compressed import decompress_model
    from statprune.system.console import waiting

    check_folder(options.folder.parent)
    interrupts.raise_error()  # there is a folder to remove from now on
    with waiting(f"decompressing {options.model}"):
        sizes = decompress_model(options.model, options.folder)
    print_sizes(options.folder, sizes)
    return 0
