"""How a score treats the input channels of one matrix: its factor for each channel, and what it keeps there."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from statprune.config.checks import parse_config
from statprune.config.schema import RunConfig
from statprune.core.patterns import Pattern
from statprune.core.scores import CvrOptions, cvr, wanda
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.data.windows import calibration_windows
from statprune.errors import StatpruneError
from statprune.model.loading import LoadedModel, open_model
from statprune.pruning.calibration import automatic_batch_size
from statprune.runs.store import read_record
from statprune.system.devices import choose_device
from statprune.system.plugin_files import use_plugin_files
from statprune.walk.batches import advance, capture
from statprune.walk.collect import observe
from statprune.walk.discover import eager_experts, find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class MatrixInput:
    """A dense matrix and its input.

    Attributes:
        weight: (out_features, in_features), float32.
        statistics: moments of its input.
    """

    weight: Tensor
    statistics: InputStatistics


def channel_scores(matrix: MatrixInput, pattern: Pattern, options: CvrOptions | None = None) -> pd.DataFrame:
    """Wanda's and CVR's treatment of each input channel.

    Args:
        matrix: with its input.
        pattern: what is kept.
        options: CVR's parameters; None: the paper's.

    Returns:
        A row for each channel: ``activation`` (root mean square of x_j), ``wanda_factor`` and ``cvr_factor`` (what
        |W_ij| is multiplied by, ‖x_j‖₂ and a_j · c_j, over its median; NaN where the whole column is zero),
        ``wanda_kept`` and ``cvr_kept`` (share of the column's weights that the pattern keeps).
    """
    weight, statistics = matrix.weight, matrix.statistics
    scores = {
        "wanda": wanda(weight, statistics),
        "cvr": cvr(weight, statistics, options),
    }
    columns = {"activation": statistics.norm / max(statistics.count, 1) ** 0.5}
    for name, score in scores.items():
        factor = score.double().sum(0) / weight.abs().double().sum(0)
        columns[f"{name}_factor"] = factor / factor.nanmedian()
        columns[f"{name}_kept"] = pattern.select(score).double().mean(0)
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


@torch.inference_mode(False)
@torch.no_grad()
def matrix_input(
    model: "LoadedModel | PreTrainedModel", windows: Tensor, block: int, name: str, min_expert_tokens: int = 32
) -> MatrixInput:
    """A dense model's matrix with the moments of its input.

    Args:
        model: a causal language model.
        windows: calibration token ids, (samples, seq_len).
        block: number of the decoder block.
        name: of the matrix within the block, such as ``mlp.down_proj``.
        min_expert_tokens: an expert that fewer tokens reach has the statistics of its mixture.

    Raises:
        StatpruneError: the model has no such matrix.
    """
    network = model.model if isinstance(model, LoadedModel) else model
    blocks = find_blocks(model, windows)
    if not 0 <= block < len(blocks):
        raise StatpruneError(f"there is no block {block}; the model has blocks 0 to {len(blocks) - 1}")
    matrices = {matrix.name: matrix for matrix in blocks[block].matrices}
    if name not in matrices:
        raise StatpruneError(f"block {block} has no layer {name}; choose one of: {', '.join(matrices)}")
    with eager_experts(network):
        batches = capture(network, blocks, windows, automatic_batch_size(windows.shape[1], network.device))
        for earlier in blocks[:block]:
            with earlier.loaded():
                advance(earlier, batches)
        with blocks[block].loaded():
            statistics = observe(blocks[block], batches, StatisticsKind.MOMENTS, None, False, min_expert_tokens)
            return MatrixInput(matrices[name].read(), statistics[name])


def config_of(folder: Path) -> RunConfig:
    """Configuration of a run that left a record.

    Raises:
        StatpruneError: there is no such run.
    """
    record = read_record(folder)
    if record is None:
        raise StatpruneError(f"{folder} holds no finished run; give the folder of one")
    use_plugin_files(record.config.get("plugins", []))
    return parse_config(record.config)


def input_of_run(config: RunConfig, folder: Path, block: int, name: str) -> MatrixInput:
    """``matrix_input`` of a run's dense model under its calibration.

    Args:
        config: the run's.
        folder: where blocks would be written that wait on disk.
        block: number of the decoder block.
        name: of the matrix within the block.

    Raises:
        StatpruneError: there is no such matrix, or the run's model or calibration text is not there any more.
    """
    device = choose_device(config.settings.device)
    settings = config.settings
    loaded = open_model(config.model.source, str(device), settings.offload.value, folder, settings.converted_models)
    options = config.calibration
    windows = calibration_windows(
        loaded.tokenizer, options.source, options.samples, options.seq_len, config.settings.seed, options.path
    )
    return matrix_input(loaded, windows.ids, block, name, options.min_expert_tokens)
