"""Hands over the reports of pruned blocks once a device has computed their numbers."""

from collections.abc import Sequence
from types import TracebackType

from statprune.model.matrix import Block
from statprune.pruning.report import MatrixReport, PendingBlock, PendingReport
from statprune.pruning.spec import OnBlock
from statprune.system.distributed import gathered, size


class Reporter:
    """Collects the blocks' reports and hands them to ``on_block``, ``lag`` blocks late.

    Reading a GPU's numbers at once would wait for the block.
    """

    def __init__(self, blocks: int, on_block: OnBlock | None, lag: int):
        self.reports: list[MatrixReport] = []
        self._blocks, self._on_block, self._lag = blocks, on_block, lag
        self._waiting: list[tuple[Block, PendingBlock]] = []

    def add(self, block: Block, reports: Sequence[PendingReport]) -> None:
        """A block was handed to the device."""
        self._waiting.append((block, PendingBlock(reports)))
        self._hand_over(self._lag)

    def _hand_over(self, still_waiting: int) -> None:
        while len(self._waiting) > still_waiting:
            block, pending = self._waiting.pop(0)
            by_name = {report.name: report for part in gathered(pending.finished()) for report in part}
            reports = [by_name[matrix.name] for matrix in block.matrices]
            self.reports += reports
            if self._on_block is not None:
                self._on_block(block.index, self._blocks, reports)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or size() == 1:  # after an error the other processes can't be asked
            self._hand_over(0)
