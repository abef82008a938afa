"""``statprune init``: a package of one's own choices, ready to be installed and changed."""

import argparse
import keyword
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from statprune.errors import StatpruneError

EXAMPLE = "statprune init my-pruning"
SUFFIX = ".tmpl"  # of the skeleton's files: no tool takes them for Python of ours
DISTRIBUTION, MODULE = "statprune-example", "statprune_example"  # in the skeleton, in the place of the names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.add_argument("folder", type=Path, help="new or empty: a score, a compensation and so on, with their tests")
    parser.add_argument("--name", help="of the distribution; that of the folder")


def run(options: argparse.Namespace) -> int:
    """Carry the verb out.

    Raises:
        StatpruneError: the name can't be one, or the folder can't be written or is not empty.
    """
    folder: Path = options.folder
    name = options.name or folder.absolute().name
    module = module_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StatpruneError(f"{folder} is there already and no empty folder; give another one, or empty it")
    try:
        for path, text in skeleton():
            target = folder / path.replace(MODULE, module)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace(DISTRIBUTION, name).replace(MODULE, module), encoding="utf-8")
    except OSError as error:
        raise StatpruneError(f"{folder} can't be written ({error.strerror}); give another folder") from error
    quoted = shlex.quote(str(folder))
    print(
        f"{folder} holds the package {module} with a score, a compensation, an allocation and a text source; then:\n"
        f"  pip install -e {quoted}\n"
        f"  pytest {quoted}\n"
        "  statprune method=centred_wanda compensation=row_norm calibration=docstrings"
    )
    return 0


def skeleton() -> Iterator[tuple[str, str]]:
    """(path, text) of every file of the skeleton."""
    return _files_below(files("statprune.cli") / "skeleton", PurePosixPath())


def _files_below(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files_below(entry, path / entry.name)
        elif entry.name.endswith(SUFFIX):
            yield str(path / entry.name.removesuffix(SUFFIX)), entry.read_text(encoding="utf-8")


def module_name(name: str) -> str:
    """The package that a distribution of this name has.

    Raises:
        StatpruneError: the name can't be that of a distribution, or its package's is taken.
    """
    module = re.sub(r"[-.]+", "_", name).lower()
    is_name = re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", name, re.ASCII)
    if not is_name or not module.isidentifier() or keyword.iskeyword(module):
        raise StatpruneError(
            f"{name!r} can't be the name of a package; give --name with one of letters, digits and hyphens, such as "
            "my-pruning"
        )
    owner = _owner(name, module)
    if owner is not None:
        raise StatpruneError(f"the package {module!r} is {owner}'s already; give another --name, such as my-pruning")
    return module


def _owner(name: str, module: str) -> str | None:
    """Who has a package or a distribution of this name already."""
    if module in sys.stdlib_module_names:
        return "Python"
    if owners := metadata.packages_distributions().get(module):
        return owners[0]
    try:
        return metadata.distribution(name).name
    except metadata.PackageNotFoundError:
        return None
