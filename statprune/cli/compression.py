"""What ``compress`` and ``decompress`` share: two folders, and the sizes that are printed."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statprune.model.compressed import Sizes


def add_folders(parser: argparse.ArgumentParser, model: str, folder: str) -> None:
    """The folder that is read and the one that is written.

    Args:
        parser: of the verb.
        model: what is read, for the help.
        folder: what is written, for the help.
    """
    parser.add_argument("model", type=Path, metavar="MODEL", help=model)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=f"{folder}; it must not exist")


def print_sizes(folder: Path, sizes: "Sizes") -> None:
    """Print what was written, and how large it is both ways."""
    share = sizes.compressed / max(sizes.dense, 1)
    matrices = "1 matrix" if sizes.matrices == 1 else f"{sizes.matrices} matrices"
    print(
        f"{folder}: {matrices} as bits and values; {sizes.dense / 2**20:.1f} MiB dense, "
        f"{sizes.compressed / 2**20:.1f} MiB compressed ({share:.1%})"
    )
