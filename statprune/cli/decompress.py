"""``statprune decompress``: give a compressed model its zeros back."""

import argparse
from pathlib import Path

EXAMPLE = "statprune decompress small dense"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that statprune compress has written")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="dense folder to write; it must not exist")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the folder exists.
    """
    # slow to import: not for --help
    from statprune.model.compressed import decompress_model
    from statprune.system.console import waiting

    with waiting(f"decompressing {options.model}"):
        sizes = decompress_model(options.model, options.folder)
    share = sizes.compressed / max(sizes.dense, 1)
    print(
        f"{options.folder}: {sizes.matrices} matrices as bits and values; {sizes.dense / 2**20:.1f} MiB dense, "
        f"{sizes.compressed / 2**20:.1f} MiB compressed ({share:.1%})"
    )
    return 0
