"""What is wrong with a command, found in this process; no job is started."""

import os

from statprune.cli.run import command_problems
from statprune.config.place import own_place, use_place
from statprune.system.plugin_files import PLUGINS


def problems_of(*arguments: str) -> list[str]:
    """Sentences about a command in Hydra's grammar, as for a process of its own."""
    before = os.environ.pop(PLUGINS, None)
    try:
        return command_problems(arguments)
    finally:
        use_place(own_place())
        os.environ.pop(PLUGINS, None)
        if before is not None:
            os.environ[PLUGINS] = before
