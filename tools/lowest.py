"""The lower end of every range in [project.dependencies], as exact requirements: ``make test-lowest`` installs these.

Usage: python tools/lowest.py [PACKAGE=VERSION ...], where a version given there replaces the lower end.
"""

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(dependencies: list[str], instead: Mapping[str, str]) -> list[str]:
    """Each dependency at the lower end of its range.

    Args:
        dependencies: as they stand in pyproject.toml.
        instead: versions by package, where another one than the lower end is meant.

    Raises:
        ValueError: a range has no lower end, or a version is given for what is no dependency.
    """
    requirements = [Requirement(text) for text in dependencies]
    if unknown := sorted(set(instead) - {requirement.name for requirement in requirements}):
        raise ValueError(f"{', '.join(unknown)} is no dependency in {PROJECT.name}")
    return [
        f"{requirement.name}=={instead.get(requirement.name) or _lower_end(requirement)}"
        + (f"; {requirement.marker}" if requirement.marker is not None else "")
        for requirement in requirements
    ]


def _lower_end(requirement: Requirement) -> str:
    ends = [one.version for one in requirement.specifier if one.operator == ">="]
    if len(ends) != 1:
        raise ValueError(f"{requirement} has no lower end; write it as NAME>=VERSION")
    return ends[0]


if __name__ == "__main__":
    with PROJECT.open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    print(*lowest(dependencies, dict(word.split("=", 1) for word in sys.argv[1:])), sep="\n")
