"""What is installed, and on which machine: what a report of a fault needs.

PyTorch is imported last and may fail: an installation that is broken is what such a report is about.
"""

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata

from statprune.errors import first_line
from statprune.system.checkout import git_commit, has_local_changes
from statprune.system.processor import processor_name

OWN = "statprune"
NAME = re.compile(r"[\w.-]+")  # of a package, at the beginning of a requirement


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process sees.

    Attributes:
        name: of the product.
        memory_gib: in all.
    """

    name: str
    memory_gib: float


@dataclass(frozen=True)
class Machine:
    """The computer, as the operating system and PyTorch see it.

    Attributes:
        platform: of the operating system.
        cpu: its model, or its architecture where the system tells no more.
        cores: that the system has.
        memory_gib: in all; None where the system does not tell.
        cuda: that PyTorch was built for; None: it is a build for CPUs, or can't be imported.
        gpus: that this process sees.
        torch_problem: why PyTorch can't be imported; None: it can.
    """

    platform: str
    cpu: str
    cores: int | None
    memory_gib: float | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    torch_problem: str | None


@dataclass(frozen=True)
class Installation:
    """All of it.

    Attributes:
        statprune: its version.
        git_commit: of the checkout; None for an installed wheel.
        has_local_changes: whether files of the checkout differ from the commit; None without a commit.
        python: its version.
        packages: versions of what statprune depends on, by name; None: it is missing. What only an extra needs is
            left out where it is missing.
        plugins: versions of the distributions that bring choices, by name.
        machine: the computer.
    """

    statprune: str
    git_commit: str | None
    has_local_changes: bool | None
    python: str
    packages: dict[str, str | None]
    plugins: dict[str, str]
    machine: Machine


def describe_installation() -> Installation:
    """This process's installation."""
    commit = git_commit()
    return Installation(
        statprune=metadata.version(OWN),
        git_commit=commit,
        has_local_changes=has_local_changes() if commit is not None else None,
        python=sys.version.split()[0],
        packages=_packages(),
        plugins=_plugins(),
        machine=_machine(),
    )


def _packages() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for requirement in metadata.requires(OWN) or []:
        name = NAME.match(requirement)
        if name is None or name[0] in versions:
            continue
        try:
            versions[name[0]] = metadata.version(name[0])
        except metadata.PackageNotFoundError:
            if "extra ==" not in requirement:
                versions[name[0]] = None
    return versions


def _plugins() -> dict[str, str]:
    points = metadata.entry_points()
    groups = [group for group in points.groups if group.startswith(f"{OWN}.")]
    found = [point.dist for group in groups for point in points.select(group=group) if point.dist is not None]
    return {distribution.name: distribution.version for distribution in found}


def _machine() -> Machine:
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    try:
        import torch

        cuda, gpus = torch.version.cuda, _gpus()
    except Exception as error:  # whatever is wrong with it
        problem = f"{type(error).__name__}: {first_line(error)}"
    return Machine(platform.platform(), processor_name(), os.cpu_count(), _memory_gib(), cuda, gpus, problem)


def _gpus() -> tuple[Gpu, ...]:
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(properties.name, round(properties.total_memory / 2**30, 1)) for properties in found)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
