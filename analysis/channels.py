"""How a score treats the input channels of one layer: its factor for each channel, and what it keeps there."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from statprune.blocks import advance, capture, observe
from statprune.errors import StatpruneError
from statprune.masks import Pattern
from statprune.scores import CvrOptions, NoOptions, cvr, wanda
from statprune.statistics import InputStatistics, StatisticsKind
from statprune.structure import find_blocks


def channel_scores(
    weight: Tensor, statistics: InputStatistics, pattern: Pattern, options: CvrOptions | None = None
) -> pd.DataFrame:
    """Wanda's and CVR's treatment of each input channel.

    Args:
        weight: (out_features, in_features).
        statistics: of its input, with moments.
        pattern: what is kept.
        options: CVR's parameters; None: the paper's.

    Returns:
        A row for each channel: ``activation`` (root mean square of x_j), ``wanda_factor`` and ``cvr_factor`` (what
        |W_ij| is multiplied by, ‖x_j‖₂ and a_j · c_j, over its median; NaN where the whole column is zero),
        ``wanda_kept`` and ``cvr_kept`` (share of the column's weights that the pattern keeps).
    """
    scores = {
        "wanda": wanda(weight, statistics, NoOptions()),
        "cvr": cvr(weight, statistics, options or CvrOptions()),
    }
    columns = {"activation": statistics.norm / max(statistics.count, 1) ** 0.5}
    for name, score in scores.items():
        factor = score.double().sum(0) / weight.abs().double().sum(0)
        columns[f"{name}_factor"] = factor / factor.nanmedian()
        columns[f"{name}_kept"] = pattern.select(score).double().mean(0)
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


@torch.inference_mode(False)
@torch.no_grad()
def layer_input(model: Any, windows: Tensor, block: int, layer: str) -> tuple[Tensor, InputStatistics]:
    """A dense model's weight, (out_features, in_features) in float32, and the moments of its input.

    Args:
        model: a causal language model.
        windows: calibration token ids, (samples, seq_len).
        block: number of the decoder block.
        layer: name within the block, such as ``mlp.down_proj``.

    Raises:
        StatpruneError: the model has no such layer.
    """
    blocks = find_blocks(model, windows)
    if not 0 <= block < len(blocks):
        raise StatpruneError(f"there is no block {block}; the model has blocks 0 to {len(blocks) - 1}")
    layers = {known.name: known for known in blocks[block].layers}
    if layer not in layers:
        raise StatpruneError(f"block {block} has no layer {layer}; choose one of: {', '.join(layers)}")
    batches = capture(model, blocks, windows, batch_size=len(windows))
    for earlier in blocks[:block]:
        advance(earlier, batches)
    statistics = observe(blocks[block], batches, StatisticsKind.MOMENTS, None, advance=False)
    return layers[layer].read(), statistics[layer]
