"""Matrices with statistics of their inputs, ordinary and degenerate, on every device and in both precisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.statistics import InputStatistics, StatisticsKind

ROWS, COLUMNS, TOKENS = 24, 32, 96
USUAL = "an ordinary matrix"
PATTERNS: tuple[Pattern, ...] = (
    Unstructured(0.5),
    Unstructured(0.3),
    Unstructured(0.0),
    Unstructured(0.37, exact=True),
    Unstructured(0.7, Group.matrix),
    NofM(2, 4),
    NofM(1, 4),
)


@dataclass(frozen=True)
class Case:
    """A matrix and the statistics of its inputs.

    Attributes:
        label: what is special about it, on which device and in which precision.
        weight: (out_features, in_features).
        statistics: of its inputs.
    """

    label: str
    weight: Tensor
    statistics: InputStatistics


def devices() -> list[torch.device]:
    """The CPU, and the current CUDA device where there is one."""
    cuda = [torch.device("cuda", torch.cuda.current_device())] if torch.cuda.is_available() else []
    return [torch.device("cpu"), *cuda]


def cases(kind: StatisticsKind, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Iterator[Case]:
    """Every case on every device in float32 and float64.

    Args:
        kind: of the statistics.
        shape: of the weight: (out_features, in_features).
    """
    for device in devices():
        for dtype in (torch.float32, torch.float64):
            for label, weight, inputs in _matrices(shape):
                name = f"{label} ({str(dtype).removeprefix('torch.')}, {device.type})"
                weight = weight.to(device, dtype)
                if inputs is None:
                    yield Case(name, weight, InputStatistics.uninformed(weight.shape[1], kind, device))
                else:
                    yield Case(name, weight, statistics_of(inputs.to(device, dtype), kind))


def usual_case(kind: StatisticsKind, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Case:
    """The ordinary matrix on the CPU in float32; the same each time."""
    return next(cases(kind, shape))


def statistics_of(inputs: Tensor, kind: StatisticsKind) -> InputStatistics:
    """Statistics of inputs of shape (tokens, in_features), with all of their rows as the sample."""
    index = torch.arange(len(inputs))
    statistics = InputStatistics(inputs.shape[1], kind, index, inputs.device, inputs.dtype)
    statistics.update(inputs)
    return statistics


def fitting(patterns: Sequence[Pattern], in_features: int) -> list[Pattern]:
    """Those of the patterns that a matrix with so many inputs can have."""
    return [pattern for pattern in patterns if pattern.problem(in_features) is None]


def _matrices(shape: tuple[int, int]) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """(what is special, weight, inputs), float64; None for inputs that nobody has seen."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    spread = torch.linspace(0.2, 3, shape[1], dtype=torch.float64)  # channels are unlike each other
    inputs = torch.randn(TOKENS, shape[1], generator=generator, dtype=torch.float64) * spread + spread.flip(0) / 2
    yield USUAL, weight, inputs
    dead = inputs.clone()
    dead[:, 3] = 0
    yield "a channel whose inputs are all zero", weight, dead
    constant = inputs.clone()
    constant[:, 5] = 1.5
    yield "a channel whose inputs are all the same", weight, constant
    empty_row = weight.clone()
    empty_row[2] = 0
    yield "a row of zeros", empty_row, inputs
    yield "a matrix of zeros", torch.zeros_like(weight), inputs
    yield "a single row", weight[:1].clone(), inputs
    yield "fewer tokens than inputs", weight, inputs[:5].clone()
    yield "statistics of no token", weight, None
