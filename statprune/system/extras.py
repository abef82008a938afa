"""What an optional part of ours needs, as a command that installs it from wherever statprune itself came."""

import shlex
from importlib.metadata import requires


def install_command(extra: str) -> str:
    """The command that installs what one of our extras declares.

    It names the packages, not ``statprune[extra]``: that would need statprune on a package index.

    Args:
        extra: its name in pyproject.toml.
    """
    from packaging.requirements import Requirement  # slow to import: only a command that lacks something needs it

    wanted = []
    for requirement in map(Requirement, requires("statprune") or []):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        names = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        wanted.append(f"{requirement.name}{names}{requirement.specifier}")
    return f"pip install {shlex.join(wanted)}"
