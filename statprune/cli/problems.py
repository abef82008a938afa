"""How the command tells what the user got wrong: a line for each sentence, and exit status 1."""

import os
import sys
from collections.abc import Callable, Iterable

from statprune.errors import ConfigError, StatpruneError, one_line


def report_problems(act: Callable[[], int]) -> int:
    """Run ``act`` and print what the user got wrong in sentences; returns the exit status."""
    try:
        return act()
    except ConfigError as error:
        return print_problems(error.problems)
    except StatpruneError as error:
        return print_problems([str(error)])
    except (MemoryError, RuntimeError) as error:
        from statprune.system.memory import memory_problem  # slow to import: not for a typo

        if (problem := memory_problem(error)) is None:
            raise
        advice = "give smaller batches, shorter texts or a smaller model, or use a machine with more memory"
        return print_problems([f"{problem}; {advice}"])


def print_problems(problems: Iterable[str]) -> int:
    """Print problems, in one of several processes; returns the exit status."""
    from statprune.config.secrets import without_secrets  # slow to import: not for a command without problems

    for problem in problems if _speaks() else ():
        print(f"statprune: {one_line(without_secrets(problem))}", file=sys.stderr)
    return 1


def _speaks() -> bool:
    """Whether this process tells the user: one of several does."""
    if "WORLD_SIZE" not in os.environ:
        return True
    from statprune.system.distributed import rank  # slow to import: not for a typo

    return rank() == 0
