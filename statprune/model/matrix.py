"""What decoder blocks consist of: the matrices that can be pruned, and those that are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from statprune.model.offload import Streamer


@dataclass(frozen=True)
class PrunableMatrix:
    """One prunable matrix of a block: a parameter, or one of the equal matrices (experts) that a parameter stacks.

    Attributes:
        name: the parameter's path within the block without ``.weight``, with the expert's number where it has one.
        parameter_name: the parameter's path within the block.
        parameter: the stored tensor.
        index: which matrix of the parameter; ``count`` is how many it stacks (1: it is one matrix).
        shape: of the matrix as stored.
        transposed: stored as (in_features, out_features), as GPT-2's Conv1D is.
        stack: what the experts of one mixture have in common in their names, or None.
        follows_norm: whether its inputs are what a norm returned.
    """

    name: str
    parameter_name: str
    parameter: Tensor = field(repr=False)
    index: int
    count: int
    shape: tuple[int, int]
    transposed: bool
    stack: str | None = None
    follows_norm: bool = False

    @property
    def stored(self) -> Tensor:
        """View of the matrix in the parameter."""
        parameter = self.parameter.detach()
        if parameter.shape == self.shape:
            return parameter
        stacked = parameter if parameter.shape[1:] == self.shape else parameter.view(self.count, *self.shape)
        return stacked[self.index]

    @property
    def oriented(self) -> Tensor:
        """View of the matrix in the parameter, (out_features, in_features)."""
        return self.stored.T if self.transposed else self.stored

    def read(self) -> Tensor:
        """Float32 working copy, (out_features, in_features)."""
        return self.oriented.to(torch.float32, copy=True).contiguous()

    def write(self, weight: Tensor) -> None:
        """Store a weight of shape (out_features, in_features) in the parameter's own dtype and layout.

        Zeros have no sign: a negative weight times its mask would be stored with a bit set.
        """
        self.stored.copy_(weight.T if self.transposed else weight)
        self.stored.add_(0.0)

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.shape[0 if self.transposed else 1]

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.shape[1 if self.transposed else 0]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]

    @property
    def expert(self) -> str | None:
        """Which expert of the block the matrix belongs to, or None."""
        if self.stack is None:
            return None
        mixture, is_listed, _ = self.stack.partition(".*.")
        if is_listed:
            return f"{mixture}.{self.name.removeprefix(f'{mixture}.').partition('.')[0]}"
        return f"{self.stack.rpartition('.')[0]}[{self.index}]"

    @property
    def kind(self) -> str:
        """What the matrix is called in every block: its name, or its stack's."""
        return self.stack or self.name


@dataclass(frozen=True)
class SkippedMatrix:
    """Matrix weights of a block that are not pruned.

    Attributes:
        kind: as ``PrunableMatrix.kind``.
        reason: excluded, router, gate, or no product seen.
        source: the parameter, or a matrix in it.
    """

    kind: str
    reason: str
    source: Tensor | PrunableMatrix = field(repr=False)

    @property
    def tensor(self) -> Tensor:
        """The weights."""
        return self.source.stored if isinstance(self.source, PrunableMatrix) else self.source.detach()

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.tensor.numel()


@dataclass(frozen=True)
class Block:
    """One decoder block.

    Attributes:
        index: its number.
        path: of the module in the model.
        module: the block.
        matrices: what is pruned.
        skipped: matrices that are not.
        extra_outputs: what the block returns after its hidden states; None where it returns a bare tensor.
        streamer: brings its weights to the device; None where they are there.
    """

    index: int
    path: str
    module: nn.Module = field(repr=False)
    matrices: list[PrunableMatrix]
    skipped: list[SkippedMatrix]
    extra_outputs: tuple[Any, ...] | None
    streamer: Streamer | None = field(default=None, repr=False)

    @contextmanager
    def loaded(self, changed: bool = False) -> Iterator[None]:
        """Have the block's weights on the device while the body runs.

        Args:
            changed: keep the weights as they are at the end.
        """
        if self.streamer is None:
            yield
        else:
            with self.streamer.held(self.index, changed):
                yield

    def full_name(self, matrix: PrunableMatrix) -> str:
        """The matrix's name in the model."""
        return f"{self.path}.{matrix.name}"
