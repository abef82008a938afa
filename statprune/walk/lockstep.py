"""Run a block once over all windows, pausing every batch before each matrix until that matrix is pruned.

A matrix then sees what the pruned matrices before it make of the windows, inside its own block too, and the outputs of
this one run are those of the pruned block: one forward per block where observing and propagating take two (GPTQ's and
SparseGPT's authors call it true sequential). Every batch waits inside its own call of the block's forward, a
greenlet: all are in one thread, so that they share its memory and its pool of workers.
"""

from collections.abc import Callable, Sequence

from greenlet import greenlet

from statprune.errors import ModelError
from statprune.model.loading import Block, Layer
from statprune.walk.batches import Batch, Collector
from statprune.walk.products import Products, Use


def run_in_lockstep(
    block: Block, batches: Sequence[Batch], collector: Collector, solve: Callable[[Layer], None], advance: bool
) -> None:
    """Run the block over all batches; ``solve`` is called once for each layer, as its statistics are complete.

    Layers of a mixture are not paused at, since which batch comes to which expert depends on its tokens: they are left
    to the caller, with statistics collected from dense experts.

    Args:
        block: the block.
        batches: the windows; ``advance`` replaces their hidden states by the block's outputs.
        collector: takes the layers' inputs.
        solve: prunes a layer in place.
        advance: see ``batches``.

    Raises:
        ModelError: a layer is used by some batches only, or twice on different inputs.
    """
    walk = _Walk(block, collector, solve, advance)
    walkers = [_Walker(walk, batch) for batch in batches]
    try:
        while any([walker.resume() for walker in walkers]):
            layers = {walker.waits_for for walker in walkers}
            if len(layers) > 1:
                names = sorted(block.path if name is None else f"{block.path}.{name}" for name in layers)
                raise ModelError(
                    f"batches of windows go through {block.path} by different ways ({', '.join(names)}); "
                    "choose propagation=pruned"
                )
            walk.solve(layers.pop() or "")
    finally:
        for walker in walkers:
            walker.abandon()


class _Walk:
    """What the batches on their way through one block share."""

    def __init__(self, block: Block, collector: Collector, solve: Callable[[Layer], None], advance: bool):
        self.block, self.collector, self.advance = block, collector, advance
        self._solve = solve
        self.open = {layer.name: layer for layer in block.layers if layer.stack is None}
        self.solved: set[str] = set()

    def solve(self, name: str) -> None:
        self._solve(self.open.pop(name))
        self.solved.add(name)


class _Walker:
    """One batch on its way through the block, which goes on within ``resume`` only.

    Attributes:
        waits_for: the layer it waits for; None once it has arrived.
    """

    def __init__(self, walk: _Walk, batch: Batch):
        self.waits_for: str | None = None
        self._walk, self._batch = walk, batch
        self._view = walk.collector.view(batch)
        self._greenlet = greenlet(self._run)

    def resume(self) -> bool:
        """Go on to the next layer to be solved; False once it has arrived."""
        if not self._greenlet.dead:
            self._greenlet.switch()
        return self.waits_for is not None

    def abandon(self) -> None:
        """Leave the block, wherever it is."""
        if not self._greenlet.dead:
            self._greenlet.throw()

    def _run(self) -> None:
        # a product is seen with the mode that sees it set aside, so that every switch finds and leaves none active
        with Products(self._walk.block.module, self._see):
            output = self._batch.run(self._walk.block)
        if self._walk.advance:
            self._batch.hidden = output
        self.waits_for = None

    def _see(self, use: Use) -> None:
        seen = self._view(use)
        if seen is None or seen.layer.stack is not None:
            return
        walk, name = self._walk, seen.layer.name
        if name in walk.solved:
            if seen.new:
                raise ModelError(
                    f"{walk.block.full(seen.layer)} multiplies several inputs, and was pruned after the first; "
                    "choose propagation=pruned, or leave it out with model.exclude"
                )
        elif seen.first in walk.solved:  # every batch was here already, before that layer was solved
            walk.solve(name)
        else:
            self.waits_for = name
            self._greenlet.parent.switch()
