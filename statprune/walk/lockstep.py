"""Run a block once over all windows, pausing every batch before each matrix until that matrix is pruned.

A matrix then sees what the pruned matrices before it make of the windows, inside its own block too, and the outputs of
this one run are those of the pruned block: one forward per block where observing and propagating take two (GPTQ's and
SparseGPT's authors call it true sequential). Every batch waits inside its own call of the block's forward, in a
greenlet: all run in one thread, so that they share its memory and its pool of workers.
"""

from collections.abc import Callable, Sequence

from greenlet import greenlet

from statprune.errors import ModelError
from statprune.model.matrix import PrunableMatrix
from statprune.walk.batches import Batch
from statprune.walk.collect import Collector
from statprune.walk.products import Products, Use

Solve = Callable[[PrunableMatrix], None]


def run_in_lockstep(batches: Sequence[Batch], collector: Collector, solve: Solve, advance: bool) -> None:
    """Run a block over all batches; ``solve`` is called once for each matrix, when its statistics are complete.

    Nothing pauses at the matrices of a mixture, since its tokens decide which batch reaches which expert: they are left
    to the caller, with statistics collected from dense experts.

    Args:
        batches: the windows; with ``advance`` their hidden states are replaced by the block's outputs.
        collector: of the block, takes the matrices' inputs.
        solve: prunes a matrix in place.
        advance: see ``batches``.

    Raises:
        ModelError: a matrix is used by some batches only, or twice on different inputs.
    """
    walk = _Walk(collector, solve, advance)
    walkers = [_Walker(walk, batch) for batch in batches]
    path = collector.block.path
    try:
        while any([walker.resume() for walker in walkers]):
            waited_for = {walker.waits_for for walker in walkers}
            if len(waited_for) > 1:
                names = sorted(path if name is None else f"{path}.{name}" for name in waited_for)
                raise ModelError(
                    f"batches of windows go through {path} by different ways ({', '.join(names)}); "
                    "choose propagation=pruned"
                )
            walk.solve(waited_for.pop() or "")
    finally:
        for walker in walkers:
            walker.abandon()


class _Walk:
    """What the batches on their way through one block share."""

    def __init__(self, collector: Collector, solve: Solve, advance: bool):
        self.collector, self.advance = collector, advance
        self._solve = solve
        self._unsolved = {matrix.name: matrix for matrix in collector.block.matrices if matrix.stack is None}
        self.solved: set[str] = set()

    def solve(self, name: str) -> None:
        self._solve(self._unsolved.pop(name))
        self.solved.add(name)


class _Walker:
    """One batch on its way through the block; it only moves within ``resume``.

    Attributes:
        waits_for: name of the matrix it waits for; None once it has arrived at the end.
    """

    def __init__(self, walk: _Walk, batch: Batch):
        self.waits_for: str | None = None
        self._walk, self._batch = walk, batch
        self._view = walk.collector.view(batch)
        self._greenlet = greenlet(self._run)

    def resume(self) -> bool:
        """Go on to the next matrix to be solved; False once the batch has arrived at the end."""
        if not self._greenlet.dead:
            self._greenlet.switch()
        return self.waits_for is not None

    def abandon(self) -> None:
        """Leave the block, wherever the batch is."""
        if not self._greenlet.dead:
            self._greenlet.throw()

    def _run(self) -> None:
        # a product is reported with the mode that sees it set aside, so that every switch finds and leaves none active
        block = self._walk.collector.block
        with Products(block.module, self._see):
            output = self._batch.run(block)
        if self._walk.advance:
            self._batch.hidden = output
        self.waits_for = None

    def _see(self, use: Use) -> None:
        observation = self._view.see(use)
        if observation is None or observation.matrix.stack is not None:
            return
        walk, name = self._walk, observation.matrix.name
        if name in walk.solved:
            if observation.is_new:
                raise ModelError(
                    f"{walk.collector.block.full_name(observation.matrix)} multiplies several inputs, and was pruned "
                    "after the first; choose propagation=pruned, or leave it out with model.exclude"
                )
        elif observation.first in walk.solved:  # every batch was here already, before that matrix was solved
            walk.solve(name)
        else:
            self.waits_for = name
            self._greenlet.parent.switch()
