"""Hands over pruned blocks once a device has computed the numbers of their reports."""

from collections.abc import Callable, Sequence
from types import TracebackType

from statprune.errors import Interrupted
from statprune.model.matrix import Block
from statprune.pruning.checkpoint import FinishedBlock
from statprune.pruning.report import MatrixReport, PendingBlock, PendingReport
from statprune.pruning.spec import OnBlock
from statprune.system.distributed import gathered, size

Save = Callable[[Block, object, list[MatrixReport]], None]


class Reporter:
    """Collects the blocks' reports and hands them to ``save`` and ``on_block``, ``lag`` blocks late.

    Reading a GPU's numbers at once would wait for the block.
    """

    def __init__(self, blocks: int, save: Save, on_block: OnBlock | None, lag: int):
        self.reports: list[MatrixReport] = []
        self._blocks, self._save, self._on_block, self._lag = blocks, save, on_block, lag
        self._waiting: list[tuple[Block, PendingBlock, object]] = []

    def add(self, block: Block, reports: Sequence[PendingReport], taken: object) -> None:
        """A block was handed to the device; ``taken`` is what ``save`` needs besides its reports."""
        self._waiting.append((block, PendingBlock(reports), taken))
        self._hand_over(self._lag)

    def add_finished(self, block: Block, finished: FinishedBlock) -> None:
        """A block was pruned by an earlier attempt."""
        self._tell(block, list(finished.reports))

    def _hand_over(self, still_waiting: int) -> None:
        while len(self._waiting) > still_waiting:
            block, pending, taken = self._waiting.pop(0)
            by_name = {report.name: report for part in gathered(pending.finished()) for report in part}
            reports = [by_name[matrix.name] for matrix in block.matrices]
            self._save(block, taken, reports)
            self._tell(block, reports)

    def _tell(self, block: Block, reports: list[MatrixReport]) -> None:
        self.reports += reports
        if self._on_block is not None:
            self._on_block(block.index, self._blocks, reports)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # after an error of one process the others can't be asked; they are all interrupted together
        if kind is None or size() == 1 or issubclass(kind, Interrupted):
            self._hand_over(0)
