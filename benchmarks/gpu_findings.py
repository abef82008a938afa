"""What a section of the GPU check found: a file that is written anew with every row, and whatever missed its target."""

import time
from pathlib import Path
from typing import Any

from benchmarks import measure


class Findings:
    """Rows of one section; what was added is in the file at once, so that a killed check keeps it.

    Args:
        path: JSON file.
        what: what the rows are about.
    """

    def __init__(self, path: Path, what: str):
        self._path, self._what = path, what
        self._machine = measure.machine(("statprune", "torch", "transformers", "triton"))
        self._start = time.perf_counter()
        self.rows: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def add(self, row: dict[str, Any], *problems: str | None) -> None:
        """Keep a row, print it, and keep what is wrong with it; None is nothing."""
        self.rows.append(row)
        self.problems += [problem for problem in problems if problem]
        result = {
            "machine": self._machine,
            "what": self._what,
            "rows": self.rows,
            "problems": self.problems,
            "seconds_of_the_check": time.perf_counter() - self._start,
        }
        measure.save(self._path, result)
        print(row, *(f"WRONG: {problem}" for problem in problems if problem), sep="\n  ", flush=True)


def over(name: str, value: float, limit: float) -> str | None:
    """A sentence where a value is over its limit."""
    return f"{name} is {value:.4g}, over {limit:g}" if value > limit else None
