"""What a call of ``prune`` keeps of its work while it goes on, so that another call can take it up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from statprune.model.matrix import Block
from statprune.pruning.report import MatrixReport


@dataclass(frozen=True)
class FinishedBlock:
    """A pruned block, but for its weights.

    Attributes:
        reports: of its matrices.
        seconds: by phase, that pruning took up to this block, in all attempts.
    """

    reports: tuple[MatrixReport, ...]
    seconds: dict[str, float]


class PruneCheckpoint(Protocol):
    """Keeps the blocks that are pruned, and knows those that an earlier attempt pruned.

    No random state is kept, since pruning has none: each random choice comes from a generator that the seed makes anew.
    Nor are hidden states: one forward of the finished blocks makes them again, to the last bit.

    In several processes all of them make each call; ``finished`` and ``ratios`` are the same in all.
    """

    @property
    def finished(self) -> Sequence[FinishedBlock]:
        """The blocks that an earlier attempt pruned, from the first one on."""

    @property
    def ratios(self) -> Mapping[str, float] | None:
        """What an earlier attempt's allocation gave each matrix; None: there was none, or it has to be asked again."""

    def begin(self, ratios: Mapping[str, float] | None) -> None:
        """The blocks are about to be pruned, with these ratios."""

    def restore(self, block: Block) -> None:
        """Put the pruned weights of a finished block in place; its weights need not be loaded."""

    def take(self, block: Block) -> object:
        """What ``save`` needs of a block's weights, which are loaded and pruned; waits for no GPU."""

    def save(self, block: Block, taken: object, finished: FinishedBlock) -> None:
        """Keep a pruned block; called for one after the other, each with what ``take`` returned."""

    def settle(self) -> None:
        """Wait until everything is kept."""


class KeepsNothing:
    """Where a call that ends early has to be made again."""

    finished: Sequence[FinishedBlock] = ()
    ratios: Mapping[str, float] | None = None

    def begin(self, ratios: Mapping[str, float] | None) -> None:
        """Nothing."""

    def restore(self, block: Block) -> None:
        """Nothing."""

    def take(self, block: Block) -> object:
        """Nothing."""

    def save(self, block: Block, taken: object, finished: FinishedBlock) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""


@contextmanager
def closing(checkpoint: PruneCheckpoint) -> Iterator[None]:
    """Have everything that was saved in the body kept at its end, however it ends."""
    try:
        yield
    finally:
        checkpoint.settle()
