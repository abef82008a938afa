"""Try several ways of pruning on a few blocks of a dense model, without changing it: errors and seconds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.core.gram import GramPrecision
from statprune.core.output_errors import output_errors
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.model.matrix import Block, PrunableMatrix
from statprune.pruning.calibration import automatic_batch_size, own_sample
from statprune.pruning.solving import solved
from statprune.pruning.spec import PruneSpec
from statprune.system.timing import time_on
from statprune.walk.batches import advance, capture
from statprune.walk.collect import observe
from statprune.walk.discover import eager_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

JUDGING_ROWS = 512  # input rows of windows that nothing was fitted to
EXPERTS = 4  # of each mixture: its experts are many, and alike

# asked after each tried block with the seconds that each way is predicted to take for the whole model: ways to give up
GiveUp = Callable[[Mapping[str, float]], set[str]]


@dataclass
class Trial:
    """What one way of pruning did on the tried blocks.

    Attributes:
        errors: relative output error of each matrix on rows of windows that nothing was fitted to.
        solve: seconds for all tried matrices, times how many more of them their blocks have.
        problem: why it can't prune this model, in a sentence; None: it can.
        given_up: it was too slow to be tried on all of the blocks.
    """

    errors: dict[str, float] = field(default_factory=dict)
    solve: float = 0.0
    problem: str | None = None
    given_up: bool = False

    @property
    def is_going_on(self) -> bool:
        """Whether it is tried on the next block."""
        return self.problem is None and not self.given_up

    @property
    def error(self) -> float:
        """Geometric mean of the matrices' errors: each of them counts alike, however large its errors are."""
        finite = [error for error in self.errors.values() if math.isfinite(error)]
        if not finite or len(finite) < len(self.errors):
            return math.nan
        return math.exp(sum(math.log(max(error, 1e-12)) for error in finite) / len(finite))


@dataclass(frozen=True)
class Trials:
    """All ways, tried on the same blocks.

    Attributes:
        ways: by name.
        blocks: numbers of the tried blocks.
        seconds: predicted for pruning the whole model, by name.
        forward: seconds of the dense model's blocks for one token.
    """

    ways: dict[str, Trial]
    blocks: tuple[int, ...]
    seconds: dict[str, float]
    forward: float


def tried_blocks(count: int, tries: int = 3) -> tuple[int, ...]:
    """Numbers of blocks that are spread over the model: the middles of as many equal parts."""
    tries = min(count, tries)
    return tuple((2 * part + 1) * count // (2 * tries) for part in range(tries))


@torch.inference_mode(False)
@torch.no_grad()
def try_ways(
    model: "PreTrainedModel",
    blocks: Sequence[Block],
    windows: Tensor,
    unseen: Tensor,
    ways: Mapping[str, PruneSpec],
    full_windows: int,
    give_up: GiveUp,
) -> Trials:
    """Prune copies of some blocks' matrices in every way; all inputs are the dense model's.

    Args:
        model: dense; it stays so.
        blocks: its, from ``find_blocks``.
        windows: calibration token ids, (windows, seq_len).
        unseen: other windows, which judge the outputs.
        ways: what to do, by name.
        full_windows: windows of the run whose seconds are predicted.
        give_up: names the ways that are too slow to be tried on the next block.

    Returns:
        Errors and seconds; where a way was given up they are those of the blocks before.
    """
    trials = {name: Trial() for name in ways}
    numbers = tried_blocks(len(blocks))
    share = full_windows / len(windows)
    seconds: dict[str, float] = {}
    with eager_experts(model):
        walk = _Walk(model, blocks, windows, unseen, ways)
        for done, number in enumerate(numbers, 1):
            with walk.at(number) as observed:
                for name, spec in ways.items():
                    if trials[name].is_going_on:
                        _try(trials[name], blocks[number], observed[spec.observed_as], walk.judges, spec)
            for name, spec in ways.items():
                if trials[name].is_going_on:
                    pass_over = walk.observing[spec.observed_as] / done + walk.propagating
                    seconds[name] = len(blocks) * (share * pass_over + trials[name].solve / done)
            if done < len(numbers):
                for name in give_up({name: own for name, own in seconds.items() if trials[name].is_going_on}):
                    trials[name].given_up = True
    return Trials(trials, numbers, seconds, walk.propagating * len(blocks) / windows.numel())


def _try(
    trial: Trial,
    block: Block,
    statistics: Mapping[str, InputStatistics],
    judges: Mapping[str, InputStatistics],
    spec: PruneSpec,
) -> None:
    """Prune copies of the block's matrices, and measure what becomes of their outputs."""
    tried = _representatives(block)
    device = tried[0].parameter.device
    start = time_on(device)
    for matrix in tried:
        dense = matrix.read()
        try:
            weight, _ = solved(dense, statistics[matrix.name], spec.pattern, spec)
        except ValueError as error:
            trial.problem = f"layer {matrix.name} of block {block.index} can't be pruned: {error}"
            return
        rows = judges[matrix.name].rows if matrix.name in judges else dense.new_zeros(0, matrix.in_features)
        if len(rows):
            trial.errors[block.full_name(matrix)] = output_errors(dense, [weight], rows)[0].item()
    work = [sum(matrix.weights for matrix in matrices) for matrices in (block.matrices, tried)]
    trial.solve += (time_on(device) - start) * work[0] / work[1]


def _representatives(block: Block) -> list[PrunableMatrix]:
    """The block's matrices, with the first few experts of each mixture alone."""
    seen: dict[str | None, set[str]] = {}
    result = []
    for matrix in block.matrices:
        experts = seen.setdefault(matrix.stack, set())
        if matrix.expert is None or matrix.expert in experts or len(experts) < EXPERTS:
            result.append(matrix)
            if matrix.expert is not None:
                experts.add(matrix.expert)
    return result


class _Walk:
    """Takes two sets of windows through the dense blocks.

    Args:
        model: dense.
        blocks: all of them.
        windows: that statistics are collected from.
        unseen: that outputs are judged by.
        ways: whose kinds of statistics are collected.

    Attributes:
        observing: seconds for the tried blocks so far, by kind and precision.
        judges: sampled rows of the unseen windows at the last tried block.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        blocks: Sequence[Block],
        windows: Tensor,
        unseen: Tensor,
        ways: Mapping[str, PruneSpec],
    ):
        size = automatic_batch_size(windows.shape[1], model.device)
        self._device = model.device
        self._blocks, self._next = blocks, 0
        self._batches, self._unseen = (capture(model, list(blocks), ids, size) for ids in (windows, unseen))
        self._experts = max(spec.min_expert_tokens for spec in ways.values())
        self._sample = own_sample(windows, max(spec.sampled_rows for spec in ways.values()), 0)
        self._judging = own_sample(unseen, JUDGING_ROWS, 0)
        self._propagated: list[float] = []
        self.observing = dict.fromkeys((spec.observed_as for spec in ways.values()), 0.0)
        self.judges: dict[str, InputStatistics] = {}

    @contextmanager
    def at(self, number: int) -> Iterator[dict[tuple[StatisticsKind, GramPrecision], dict[str, InputStatistics]]]:
        """Statistics of the block's inputs by kind and precision, while its weights are loaded."""
        for block in self._blocks[self._next : number]:
            with block.loaded():
                self._advance(block)
        self._next = number
        block = self._blocks[number]
        with block.loaded():
            observed = {}
            for kind, precision in self.observing:
                start = time_on(self._device)
                own = observe(block, self._batches, kind, self._sample, False, self._experts, precision)
                observed[kind, precision] = own
                self.observing[kind, precision] += time_on(self._device) - start
            self.judges = observe(block, self._unseen, StatisticsKind.NONE, self._judging, False)
            if not self._propagated:  # the first block of the model is tried
                self._advance(block)
                self._next += 1
            yield observed

    def _advance(self, block: Block) -> None:
        start = time_on(self._device)
        advance(block, self._batches)
        self._propagated.append(time_on(self._device) - start)
        advance(block, self._unseen)

    @property
    def propagating(self) -> float:
        """Mean seconds that a block takes for the calibration windows."""
        return sum(self._propagated) / len(self._propagated)
