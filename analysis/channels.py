"""How a score treats the input channels of one layer: its factor for each channel, and what it keeps there.

``python -m statprune.analysis.channels RUN BLOCK LAYER`` draws it for the model and the calibration of a finished run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from statprune.config.schema import RunConfig, parse_config
from statprune.core.patterns import Pattern
from statprune.core.scores import CvrOptions, NoOptions, cvr, wanda
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.data.windows import calibration_windows
from statprune.errors import StatpruneError
from statprune.pruning.loop import automatic_batch_size
from statprune.runs.pipeline import choose_device
from statprune.runs.resume import load
from statprune.runs.store import read_record
from statprune.walk.batches import advance, capture, observe
from statprune.walk.discover import eager_experts, find_blocks


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
def layer_input(
    model: Any, windows: Tensor, block: int, layer: str, min_expert_tokens: int = 32
) -> tuple[Tensor, InputStatistics]:
    """A dense model's weight, (out_features, in_features) in float32, and the moments of its input.

    Args:
        model: a causal language model.
        windows: calibration token ids, (samples, seq_len).
        block: number of the decoder block.
        layer: name within the block, such as ``mlp.down_proj``.
        min_expert_tokens: an expert that fewer tokens reach has the statistics of its mixture.

    Raises:
        StatpruneError: the model has no such layer.
    """
    blocks = find_blocks(model, windows)
    if not 0 <= block < len(blocks):
        raise StatpruneError(f"there is no block {block}; the model has blocks 0 to {len(blocks) - 1}")
    layers = {known.name: known for known in blocks[block].layers}
    if layer not in layers:
        raise StatpruneError(f"block {block} has no layer {layer}; choose one of: {', '.join(layers)}")
    with eager_experts(model):
        batches = capture(model, blocks, windows, automatic_batch_size(windows.shape[1], model.device))
        for earlier in blocks[:block]:
            advance(earlier, batches)
        statistics = observe(blocks[block], batches, StatisticsKind.MOMENTS, None, False, min_expert_tokens)
    return layers[layer].read(), statistics[layer]


def of_run(folder: Path, block: int, layer: str) -> tuple[Tensor, InputStatistics, RunConfig]:
    """``layer_input`` of a finished run's dense model under its calibration, and its configuration.

    Raises:
        StatpruneError: there is no such run or layer, or its model or calibration text is not there any more.
    """
    record = read_record(folder)
    if record is None:
        raise StatpruneError(f"{folder} holds no finished run; give the folder of one")
    config = parse_config(record["config"])
    device = choose_device(config.settings.device)
    model, tokenizer = load(config, config.model.path, device, folder)
    options = config.calibration
    windows = calibration_windows(
        tokenizer, options.source, options.samples, options.seq_len, config.settings.seed, options.path
    )
    return *layer_input(model, windows.ids, block, layer, options.min_expert_tokens), config


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    from statprune.analysis.figures import score_outliers

    parser = argparse.ArgumentParser(
        prog="python -m statprune.analysis.channels",
        description="what Wanda's and CVR's scores make of a layer's input channels",
    )
    parser.add_argument(
        "run", type=Path, help="folder of a finished run, whose model, calibration and pattern are used"
    )
    parser.add_argument("block", type=int, help="number of the decoder block, from 0")
    parser.add_argument("layer", help="name within the block, such as mlp.down_proj")
    parser.add_argument("output", type=Path, nargs="?", help="folder of the files; RUN if not given")
    options = parser.parse_args(arguments)
    try:
        weight, statistics, config = of_run(options.run, options.block, options.layer)
    except StatpruneError as error:
        print(f"channels: {error}", file=sys.stderr)
        return 1
    name = f"{Path(config.model.path).name}, block {options.block}, {options.layer}"
    cvr_options = config.method_options if isinstance(config.method_options, CvrOptions) else None
    print(
        *score_outliers(weight, statistics, options.output or options.run, name, config.pattern, cvr_options), sep="\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
