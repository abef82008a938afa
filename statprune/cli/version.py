"""``statprune --version``, and with ``--json`` what a report of a fault needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

FLAG, AS_JSON = "--version", "--json"


def print_version(arguments: Sequence[str]) -> int:
    """Print the version, or the installation as JSON; returns the exit status.

    Args:
        arguments: of the command, the flag among them.
    """
    if others := [word for word in arguments if word not in (FLAG, AS_JSON)]:
        from statprune.cli.problems import print_problems

        return print_problems([f"{others[0]} means nothing beside {FLAG}; give {FLAG} alone, or with {AS_JSON}"])
    if AS_JSON in arguments:
        from statprune.system.installation import describe_installation  # slow to import: not for the version alone

        print(json.dumps(asdict(describe_installation()), indent=2))
    else:
        print(f"statprune {version('statprune')}")
    return 0
