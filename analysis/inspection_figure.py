"""A picture of a checkpoint: sparsity, and relative change from a dense one, by block and kind of matrix."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from statprune.analysis.drawing import STYLE, empty_figure, save
from statprune.evaluation.inspection import InspectedTensor, Inspection, by_kind


def draw_inspection(inspection: Inspection, folder: Path) -> list[Path]:
    """Write the picture as PNG and PDF; returns their paths, none where the checkpoint has no blocks."""
    if not inspection.matrices:
        return []
    return save(inspection_figure(inspection), folder, "inspection")


@STYLE
def inspection_figure(inspection: Inspection) -> Figure:
    """One panel for the sparsity, and beside it one for the relative change where there is a dense checkpoint."""
    kinds = by_kind(inspection.matrices)
    blocks = sorted({own.block for own in inspection.matrices if own.block is not None})
    panels = 2 if inspection.against is not None else 1
    figure = empty_figure((1.6 + 3.2 * panels, 1.4 + max(1.2, 0.11 * len(blocks))))
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    _panel(axes[0], "sparsity", [[_mean(own, block, _sparsity) for own in kinds.values()] for block in blocks], 1.0)
    if inspection.against is not None:
        values = [[_mean(own, block, _change) for own in kinds.values()] for block in blocks]
        _panel(axes[1], "relative change", values, None)
    for own in axes:
        own.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", rotation_mode="anchor")
        own.grid(visible=False)
    ticks = range(0, len(blocks), -(-len(blocks) // 10))
    axes[0].set_yticks(ticks, [str(blocks[tick]) for tick in ticks])
    axes[0].set_ylabel("block")
    return figure


def _panel(axes: Axes, title: str, values: list[list[float]], top: float | None) -> None:
    image = axes.imshow(np.array(values), aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(title)
    axes.figure.colorbar(image, ax=axes, fraction=0.06)


def _mean(members: list[InspectedTensor], block: int, value: Callable[[InspectedTensor], float | None]) -> float:
    """Over the matrices of one kind in one block; NaN, which is left white, where none has a value."""
    own = [found for member in members if member.block == block and (found := value(member)) is not None]
    return float(np.mean(own)) if own else float("nan")


def _sparsity(tensor: InspectedTensor) -> float:
    assert tensor.facts is not None  # a matrix
    return tensor.facts.zeros / tensor.facts.weights


def _change(tensor: InspectedTensor) -> float | None:
    return tensor.change.relative_change if tensor.change is not None else None
