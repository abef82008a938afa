"""``statprune compress``: store a sparse model smaller."""

import argparse
from pathlib import Path

EXAMPLE = "statprune compress outputs/default/RUN/model small"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a saved model")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; it must not exist")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: there is no such model, it is damaged, or the folder exists.
    """
    # slow to import: not for --help
    from statprune.model.compressed import compress_model
    from statprune.system.console import waiting

    with waiting(f"compressing {options.model}"):
        sizes = compress_model(options.model, options.folder)
    share = sizes.compressed / max(sizes.dense, 1)
    print(
        f"{options.folder}: {sizes.matrices} matrices as bits and values; {sizes.dense / 2**20:.1f} MiB dense, "
        f"{sizes.compressed / 2**20:.1f} MiB compressed ({share:.1%})"
    )
    return 0
