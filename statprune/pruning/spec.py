"""What a call of ``prune`` is asked to do, how it runs, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.core.compensation import Compensation
from statprune.core.conjugate_gradients import WORKING_COPIES
from statprune.core.gram import GramPrecision
from statprune.core.methods import Method
from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.data.token_windows import TextOrigin
from statprune.errors import ModelError
from statprune.model.coverage import Coverage
from statprune.pruning.allocation import Allocation
from statprune.pruning.checkpoint import KeepsNothing, PruneCheckpoint
from statprune.pruning.report import MatrixReport
from statprune.walk.activations import Placement

if TYPE_CHECKING:
    import pandas as pd

ROWS_FOR_OUTPUT_ERROR = 256  # sampled input rows on which each matrix's output error is measured
LATER_GRAM_COPIES = 7  # of a refinement or a compensation: damped, in both precisions, and a factor

# called with (number of the block, how many blocks there are, reports of its matrices)
OnBlock = Callable[[int, int, Sequence[MatrixReport]], None]


class Propagation(Enum):
    """Which inputs matrices see.

    pruned: a block sees what the pruned blocks before it produce; its matrices are all judged by the dense block's
    inputs, so that a block runs twice. sequential: a matrix sees what the pruned matrices before it produce, inside its
    own block too; one run per block. dense: all statistics are the dense model's; one run per block.
    """

    pruned = "pruned"
    sequential = "sequential"
    dense = "dense"


@dataclass(frozen=True)
class PruneSpec:
    """Everything that can change a pruned weight or its report.

    Attributes:
        method: selects, and may update, each weight.
        pattern: what is kept.
        compensation: changes the kept weights, or None.
        allocation: spreads the pattern's ratio over the matrices; None: every matrix has it.
        propagation: which inputs matrices see.
        min_expert_tokens: an expert that fewer calibration tokens reach is pruned with the statistics of its mixture.
        seed: of the sampled input rows.
        refinement: chooses a better mask after the method and before the compensation, or None.
        gram_precision: in what float32 inputs are multiplied for Gram matrices.
    """

    method: Method
    pattern: Pattern
    compensation: Compensation | None = None
    allocation: Allocation | None = None
    propagation: Propagation = Propagation.pruned
    min_expert_tokens: int = 32
    seed: int = 0
    refinement: Refinement | None = None
    gram_precision: GramPrecision = GramPrecision.float32

    def __post_init__(self) -> None:
        for key, choices in (("propagation", Propagation), ("gram_precision", GramPrecision)):
            given = getattr(self, key)
            try:
                object.__setattr__(self, key, choices(given))  # its value will do
            except ValueError:
                known = ", ".join(choice.value for choice in choices)
                raise ValueError(f"{key}={given!r} is unknown; choose one of {known}") from None
        if problem := gram_precision_problem(self.gram_precision, self.statistics_kind):
            raise ValueError(problem)
        if self.refinement is not None and (problem := self.refinement.problem(self.pattern)):
            raise ValueError(problem)

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ModelError where the refinement names matrices that are not among these full names."""
        if self.refinement is not None and names and (problem := self.refinement.problem_of_names(names)):
            raise ModelError(problem)

    def of_matrix(self, name: str) -> "PruneSpec":
        """What is done to the matrix of that full name."""
        if self.refinement is None or self.refinement.refines(name):
            return self
        return replace(self, refinement=None)

    @property
    def statistics_kind(self) -> StatisticsKind:
        """The input statistics that the method, the refinement and the compensation read."""
        return max([self.method.needs, *(stage.needs for stage in self._later_stages)])

    @property
    def observed_as(self) -> tuple[StatisticsKind, GramPrecision]:
        """What tells input statistics apart that stages with the same inputs read."""
        return self.statistics_kind, self.gram_precision

    @property
    def sampled_rows(self) -> int:
        """How many rows of each input are sampled: for the output error, and for the stages."""
        return max([ROWS_FOR_OUTPUT_ERROR, self.method.sampled_rows, *(stage.samples for stage in self._later_stages)])

    @property
    def working_copies(self) -> int:
        """How many arrays of a matrix's size the stages hold at once, in float32, for the prediction of memory."""
        later = [WORKING_COPIES for stage in self._later_stages if stage.needs >= StatisticsKind.GRAM]
        return max([self.method.working_copies, *later])

    @property
    def gram_copies(self) -> int:
        """How many arrays of a Gram matrix's size the stages hold beside it, in float32, for the prediction of memory.

        A later stage holds what SparseGPT does: the matrix in another unit or damped, and in both precisions.
        """
        later = sum(stage.needs >= StatisticsKind.GRAM for stage in self._later_stages)
        return self.method.gram_copies + later * LATER_GRAM_COPIES

    @property
    def _later_stages(self) -> list[Refinement | Compensation]:
        return [stage for stage in (self.refinement, self.compensation) if stage is not None]


def gram_precision_problem(precision: GramPrecision, kind: StatisticsKind) -> str | None:
    """Why a precision would have no effect where statistics of this kind are collected; None where it has one."""
    if precision is GramPrecision.float32 or kind >= StatisticsKind.GRAM:
        return None
    return (
        f"gram_precision={precision.value} has no effect: neither the method nor what comes after it reads a Gram "
        "matrix; leave it out"
    )


@dataclass(frozen=True)
class PruneRuntime:
    """How pruning runs; nothing here changes a weight.

    Attributes:
        batch_size: windows that go through a block together; None: as many as keep the device busy.
        placement: where the windows' hidden states wait between two blocks: device, host or disk.
        folder: for their files, where ``placement`` is disk.
        on_block: called after each block.
        statistics: for ``Propagation.dense``: used where they are collected already, with the same windows and blocks,
            and collected where they are empty.
        checkpoint: keeps the blocks that are pruned, and has those that an earlier attempt pruned.
        should_stop: asked after each block; a signal's number ends pruning there.
    """

    batch_size: int | None = None
    placement: Placement = Placement.device
    folder: Path | None = None
    on_block: OnBlock | None = None
    statistics: DenseStatistics | None = None
    checkpoint: PruneCheckpoint = field(default_factory=KeepsNothing)
    should_stop: Callable[[], int | None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is too small; give at least 1 window")


@dataclass(frozen=True)
class Calibration:
    """The windows that a model was pruned with.

    Attributes:
        samples: how many there were.
        seq_len: tokens of each.
        seed: of the sampled input rows, and of windows that were drawn for the call.
        origin: where they come from; None where only their tokens are known.
    """

    samples: int
    seq_len: int
    seed: int
    origin: TextOrigin | None = None


@dataclass(frozen=True)
class PruneResult:
    """What ``prune`` did.

    Attributes:
        seconds: by phase: calibrate, allocate (where the allocation needs a forward or reads the weights), observe,
            solve, propagate.
        matrices: a report of each pruned matrix.
        coverage: how many of the blocks' matrix weights were pruned, and which were not and why.
        spec: what was to be done.
        calibration: the windows it was done with.
    """

    seconds: dict[str, float]
    matrices: tuple[MatrixReport, ...] = field(repr=False)
    coverage: Coverage
    spec: PruneSpec
    calibration: Calibration

    @property
    def sparsity(self) -> float:
        """Fraction of exact zeros in the pruned matrices."""
        weights = sum(matrix.weights for matrix in self.matrices)
        return sum(matrix.sparsity * matrix.weights for matrix in self.matrices) / max(weights, 1)

    def to_frame(self) -> "pd.DataFrame":
        """The reports as a table, a row for each matrix."""
        import pandas as pd

        return pd.DataFrame([matrix.to_json() for matrix in self.matrices])
