"""Check of allocations, on small blocks that stand for a model's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from statprune.config.choices import SPARSITY_KEYS
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.model.matrix import Block, PrunableMatrix
from statprune.pruning.allocation import Allocation, whole_counts
from statprune.system.options import option_names
from statprune.testing.cases import devices, statistics_of
from statprune.testing.rules import called, check_options, fail, identical, require

SHAPES = {"attention": (16, 16), "up": (48, 16), "down": (16, 48)}
TOKENS = 64


def check_allocation(
    allocation: Allocation, ratios: Sequence[float] = (0.3, 0.5, 0.7), reaches_ratio: bool = True
) -> None:
    """Check an allocation: a ratio in [0, 1) for each matrix, the overall ratio to within one weight, deterministic.

    The blocks have to be as before, and ``observe`` may be called only where ``needs_forward`` says so.

    Args:
        allocation: an instance.
        ratios: overall ratios that it has to be able to spread.
        reaches_ratio: False for ratios that are given and not spread.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(allocation, Allocation):
        fail(f"check_allocation was given {type(allocation).__name__}; give an instance of a statprune.Allocation")
    name = type(allocation).__name__
    if reaches_ratio:  # ratios that are given are no choice of the configuration's
        check_options(allocation, "sparsity.")
    taken = sorted({*option_names(type(allocation))} & {*SPARSITY_KEYS})
    require(not taken, f"{name} has the option {', '.join(taken)}, which is a key of sparsity already; rename it")
    for device in devices():
        for label, model in _models(device):
            for ratio in ratios:
                what = f"{name} on {label} with the ratio {ratio} ({device.type})"
                _check_on(allocation, model, ratio, reaches_ratio, what)


@dataclass
class _Model:
    """Blocks, and what observing them gives.

    Attributes:
        blocks: the decoder blocks.
        statistics: of each block's matrices, by name.
        observed: how often they were asked for.
    """

    blocks: list[Block]
    statistics: Sequence[Mapping[str, InputStatistics]]
    observed: int = field(default=0)

    def observe(self) -> Iterable[tuple[Block, Mapping[str, InputStatistics]]]:
        """As the loop gives it."""
        self.observed += 1
        yield from zip(self.blocks, self.statistics, strict=True)


def _check_on(allocation: Allocation, model: _Model, ratio: float, reaches_ratio: bool, what: str) -> None:
    before = [matrix.read() for block in model.blocks for matrix in block.matrices]
    model.observed = 0
    found = called(what, lambda: dict(allocation.ratios(model.blocks, ratio, model.observe)))
    names = [block.full_name(matrix) for block in model.blocks for matrix in block.matrices]
    for name in names:
        value = found.get(name)
        if value is None or not 0 <= float(value) < 1:
            fail(f"{what} gives {name} {'no ratio' if value is None else f'{value}, which is outside [0, 1)'}")
    others = sorted(set(found) - set(names))
    require(not others, f"{what} gives a ratio to {', '.join(others)}, which no block has; use block.full_name(matrix)")
    if allocation.needs_forward:
        require(model.observed > 0, f"{what} never calls observe; leave needs_forward out, which costs a forward pass")
    else:
        require(model.observed == 0, f"{what} calls observe; set needs_forward: ClassVar[bool] = True")
    after = [matrix.read() for block in model.blocks for matrix in block.matrices]
    require(all(map(identical, before, after)), f"{what} changes the model's weights")
    again = called(what, lambda: dict(allocation.ratios(model.blocks, ratio, model.observe)))
    require(found == again, f"{what} gives other ratios when it is asked again; take no random numbers without a seed")
    if reaches_ratio:
        _check_overall(model.blocks, found, ratio, what)


def _check_overall(blocks: Sequence[Block], ratios: Mapping[str, float], ratio: float, what: str) -> None:
    weights = {block.full_name(matrix): matrix.weights for block in blocks for matrix in block.matrices}
    whole = whole_counts(blocks, ratios)
    removed = sum(round(whole[name] * weights[name]) for name in weights)
    total = sum(weights.values())
    require(
        abs(removed - ratio * total) <= 1 + 1e-6,
        f"{what} removes {removed} of {total} weights in all, not {ratio * total:.0f}; the mean of the ratios over all "
        "weights has to be the ratio that is asked for",
    )


def _models(device: torch.device) -> Iterable[tuple[str, _Model]]:
    """(what is special, model)."""
    yield "four blocks", _model([1.0, 2.0, 3.0, 4.0], device)
    yield "one block", _model([1.0], device)
    yield "blocks that are all alike", _model([1.0, 1.0, 1.0], device, alike=True)
    excluded = _model([1.0, 2.0, 3.0], device)
    first, second, third = excluded.blocks
    empty = Block(second.index, second.path, second.module, [], [], None)
    statistics = [{} if index == 1 else own for index, own in enumerate(excluded.statistics)]
    yield "a block without prunable matrices", _Model([first, empty, third], statistics)


def _model(scales: Sequence[float], device: torch.device, alike: bool = False) -> _Model:
    """A block for each scale: of its matrices' outliers."""
    blocks, statistics = [], []
    for index, scale in enumerate(scales):
        generator = torch.Generator().manual_seed(0 if alike else index)
        matrices, observed = [], {}
        for name, (rows, columns) in SHAPES.items():
            weight = torch.randn(rows, columns, generator=generator)
            weight[:, 0] *= 4 * scale
            parameter = nn.Parameter(weight.to(device), requires_grad=False)
            matrices.append(PrunableMatrix(name, f"{name}.weight", parameter, 0, 1, (rows, columns), False))
            inputs = torch.randn(TOKENS, columns, generator=generator) * scale
            observed[name] = statistics_of(inputs.to(device), StatisticsKind.MOMENTS)
        blocks.append(Block(index, f"model.layers.{index}", nn.Module(), matrices, [], None))
        statistics.append(observed)
    return _Model(blocks, statistics)
