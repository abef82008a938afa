"""Reports of pruned matrices: first with numbers that a GPU may still be computing, then with floats."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from statprune.core.patterns import NOT_FINITE
from statprune.core.solution import Diagnostics
from statprune.errors import ModelError
from statprune.model.matrix import PrunableMatrix
from statprune.system.timing import Stopwatch

JSON_KEYS = {"name": "layer"}  # keys of blocks.jsonl that are not the field's name


@dataclass(frozen=True)
class MatrixIdentity:
    """Which matrix was pruned, and from which inputs.

    Attributes:
        block: number of its block.
        name: its name within the block.
        expert: which expert of the block it belongs to, or None.
        out_features: number of output channels [channels].
        in_features: number of input channels [channels].
        weights: how many it has [weights].
        target_sparsity: share that its pattern removes, before rounding down [fraction].
        calibration_tokens: how many reached the matrix [tokens].
        pooled_statistics: whether it was pruned with the statistics of its whole mixture.
    """

    block: int
    name: str
    expert: str | None
    out_features: int
    in_features: int
    weights: int
    target_sparsity: float
    calibration_tokens: int
    pooled_statistics: bool


@dataclass(frozen=True)
class MatrixReport(MatrixIdentity):
    """One pruned matrix.

    Attributes:
        sparsity: exact zeros among its stored weights [fraction].
        relative_output_error: ‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ on sampled calibration inputs; None where there is no such ratio
            [fraction].
        seconds: time of solving [seconds].
        diagnostics: numbers that the method and the compensation report; None where a number is not finite.
    """

    sparsity: float
    relative_output_error: float | None
    seconds: float
    diagnostics: dict[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """One flat mapping: a line of ``blocks.jsonl``."""
        own = {JSON_KEYS.get(item.name, item.name): getattr(self, item.name) for item in fields(self)}
        diagnostics = own.pop("diagnostics")
        return own | diagnostics

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> "MatrixReport":
        """Read a line of ``blocks.jsonl``.

        Raises:
            KeyError: the line lacks a field.
        """
        names = {JSON_KEYS.get(item.name, item.name): item.name for item in fields(cls) if item.name != "diagnostics"}
        own = {name: values[key] for key, name in names.items()}
        diagnostics = {key: value for key, value in values.items() if key not in names}
        return cls(**own, diagnostics=diagnostics)  # type: ignore[arg-type]  # as the file has them


@dataclass(frozen=True)
class PendingReport:
    """A matrix that was handed to the device to be pruned.

    Attributes:
        identity: which matrix it is.
        numbers: ``sparsity``, ``relative_output_error`` and the diagnostics; scalars that may still be computed.
        stopwatch: of solving, stopped.
        dtype: that the pruned matrix is stored in.
    """

    identity: MatrixIdentity
    numbers: Diagnostics
    stopwatch: Stopwatch
    dtype: torch.dtype = torch.float32

    def finished(self, numbers: Mapping[str, float]) -> MatrixReport:
        """The report with the numbers as floats.

        Raises:
            ModelError: the score was not finite, or the pruned matrix is not.
        """
        identity = self.identity
        if math.isnan(numbers.get("score_mean", 0.0)):  # selecting does not wait for a GPU to find out
            raise ModelError(f"layer {identity.name} of block {identity.block} can't be pruned: {NOT_FINITE}")
        if math.isnan(numbers["sparsity"]):
            raise overflow(identity.block, identity.name, self.dtype)
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return MatrixReport(
            **vars(identity),
            sparsity=numbers["sparsity"],
            relative_output_error=finite.pop("relative_output_error"),
            seconds=self.stopwatch.seconds(),
            diagnostics={key: value for key, value in finite.items() if key != "sparsity"},
        )


class PendingBlock:
    """Reports of one block's matrices; its numbers are copied from a GPU together, and nothing waits for them.

    Args:
        reports: of the matrices that this process solved.
    """

    def __init__(self, reports: Sequence[PendingReport]):
        self._reports = reports
        self._on_gpu = [
            value
            for report in reports
            for value in report.numbers.values()
            if isinstance(value, Tensor) and value.is_cuda
        ]
        if self._on_gpu:
            stacked = torch.stack([number.detach().double().reshape(()) for number in self._on_gpu])
            self._host = torch.empty(len(stacked), dtype=torch.float64, device="cpu", pin_memory=True)
            self._host.copy_(stacked, non_blocking=True)
            self._copied = torch.cuda.current_stream(stacked.device).record_event()

    def finished(self) -> list[MatrixReport]:
        """The reports; waits for the GPU."""
        arrived: dict[int, float] = {}
        if self._on_gpu:
            self._copied.synchronize()
            arrived = {id(number): value for number, value in zip(self._on_gpu, self._host.tolist(), strict=True)}
        return [report.finished(_floats(report.numbers, arrived)) for report in self._reports]


def experts_with_pooled_statistics(reports: Iterable[MatrixReport]) -> int:
    """How many experts were pruned with the statistics of their mixture."""
    return len({(report.block, report.expert) for report in reports if report.pooled_statistics})


def experts_without_tokens(reports: Iterable[MatrixReport]) -> int:
    """How many experts no calibration token reached."""
    return len({(report.block, report.expert) for report in reports if report.calibration_tokens == 0})


def stored_sparsity(matrix: PrunableMatrix, block: int) -> float | Tensor:
    """The fraction of zeros in a matrix as it is stored; on a GPU a scalar that it may still be computing.

    Args:
        matrix: pruned, and cast to the dtype it is stored in.
        block: its block's number.

    Returns:
        NaN where a GPU finds a weight that is not finite: nothing waits for it.

    Raises:
        ModelError: a weight is not finite.
    """
    weight = matrix.stored
    if weight.device.type != "cpu":
        nonzero = weight.count_nonzero().double()
        return 1 - torch.where(weight.isfinite().all(), nonzero, torch.nan) / matrix.weights
    if not weight.isfinite().all():
        raise overflow(block, matrix.name, weight.dtype)
    return 1 - int(np.count_nonzero((weight != 0).numpy())) / matrix.weights  # NumPy counts six times as fast as torch


def overflow(block: int, name: str, dtype: torch.dtype) -> ModelError:
    """The error of a matrix with weights that the dtype it is stored in can't hold."""
    kind = str(dtype).removeprefix("torch.")
    return ModelError(
        f"layer {name} of block {block} can't be stored in {kind}: once pruned it has weights that are not finite "
        f"there (the largest {kind} is {torch.finfo(dtype).max:.4g}); choose a model.dtype with a wider range, "
        "or another compensation"
    )


def _floats(numbers: Diagnostics, arrived: Mapping[int, float]) -> dict[str, float]:
    result: dict[str, float] = {}
    for key, value in numbers.items():
        if isinstance(value, Tensor):
            result[key] = arrived[id(value)] if id(value) in arrived else value.item()
        else:
            result[key] = value
    return result
