"""A sweep over jobs that no grid describes: a file lists each one's overrides.

Installed as ``hydra_plugins.statprune_cells``: Hydra takes plugins from that package alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override


class CellSweeper(BasicSweeper):
    """Hydra's basic sweeper with the jobs of a file in place of a product; any launcher runs them.

    Args:
        file: JSON, a list of lists of overrides, which come after those of the command. It was checked before Hydra
            started.
        max_batch_size: jobs that are launched together; None: all.
        params: not used; every sweeper has them.
    """

    def __init__(self, file: str, max_batch_size: int | None = None, params: dict[str, str] | None = None):
        super().__init__(max_batch_size, params)
        self._cells: list[list[str]] = json.loads(Path(file).read_text(encoding="utf-8"))

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> Sequence[Sequence[Sequence[str]]]:
        """Batches of jobs: the command's overrides with those of each cell."""
        common = [str(override.input_line) for override in overrides]
        jobs = [[*common, *cell] for cell in self._cells]
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))
