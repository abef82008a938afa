"""One run: model → calibration tokens → prune → save → evaluate → record."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from statprune.allocation import check_pattern
from statprune.calibration import Windows, calibration_windows, evaluation_windows
from statprune.card import model_card
from statprune.config import RunConfig
from statprune.console import progress
from statprune.errors import ModelError
from statprune.evaluate.perplexity import window_losses
from statprune.methods import get_method
from statprune.models import Block, check_tokens, coverage, load_model, save_model, sparsity
from statprune.prune import prune
from statprune.results import SCHEMA_VERSION, environment, memory, write_json
from statprune.structure import find_blocks
from statprune.tracking import Tracker

log = logging.getLogger(__name__)


def run(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Carry out one run and write its files into ``folder``; returns the record.

    Raises:
        StatpruneError: the model or the data can't be used as asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(config.tracking.mode, config.tracking.project, folder, config.resolved())
    try:
        record = _run(config, folder, tracker)
    except BaseException:
        tracker.finish({}, failed=True)
        raise
    tracker.finish(_summary(record))
    return record


def _run(config: RunConfig, folder: Path, tracker: Tracker) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    device = _device(config.settings.device)
    log.info("loading %s", config.model.path)
    with _phase(seconds, "load"):
        model, tokenizer = load_model(
            config.model.path,
            config.model.dtype.value,
            config.model.revision,
            config.model.trust_remote_code,
            str(device),
        )
    _check_lengths(config, model)
    # everything that can be wrong with model and data is found before the first expensive step
    evaluation = _evaluation_windows(config, tokenizer)
    calibration = None
    if config.method != "dense":
        with _phase(seconds, "calibrate"):
            calibration = _calibration_windows(config, tokenizer)
    with _phase(seconds, "find"):
        blocks = _find_blocks(config, model, calibration, evaluation)
    covered = coverage(blocks, pruned=calibration is not None)

    with _phase(seconds, "evaluate"):
        dense = _evaluate(model, evaluation, config, "dense")
    _write_windows(folder, evaluation, dense, {})  # kept even if a later step fails
    layers: list[dict[str, Any]] = []
    if calibration is not None:
        for phase, value in _prune(config, model, blocks, calibration, folder, tracker, layers).items():
            seconds[phase] = seconds.get(phase, 0) + value
    unsaved = None
    if config.settings.save_model:
        with _phase(seconds, "save"):  # before the evaluation, which could fail
            unsaved = _save(model, tokenizer, folder / "model")
    pruned = dense
    if calibration is not None:
        with _phase(seconds, "evaluate"):
            pruned = _evaluate(model, evaluation, config, "pruned")

    _write_windows(folder, evaluation, dense, pruned)
    record = {
        "schema_version": SCHEMA_VERSION,
        "config": config.resolved(),
        "config_hash": config.hash(),
        "environment": environment(device),
        "metrics": {"perplexity": _perplexities(evaluation, dense, pruned)},
        "sparsity": _sparsity(config, blocks, layers),
        "coverage": covered
        | {
            "experts_with_pooled_statistics": _experts(layers, lambda layer: layer["pooled_statistics"]),
            "experts_without_tokens": _experts(layers, lambda layer: layer["calibration_tokens"] == 0),
        },
        "calibration": calibration.info if calibration else None,
        "seconds": seconds,
        "memory": memory(device),
    }
    if config.settings.save_model and unsaved is None:
        (folder / "model" / "README.md").write_text(model_card(record), encoding="utf-8")
    for source, losses in pruned.items():
        if not losses.isfinite().all():
            log.warning("the pruned perplexity on %s is not finite: weights or activations overflow", source)
    write_json(folder / "result.json", record)  # last: what it stands beside is whole
    if unsaved is not None:
        raise unsaved
    return record


def _save(model: Any, tokenizer: Any, folder: Path) -> ModelError | None:
    """Save; what went wrong is returned, so that the pruned model in memory is still measured and recorded."""
    try:
        save_model(model, tokenizer, folder)
    except Exception as error:  # a full disk, a model class whose saving is broken
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return ModelError(
            f"the pruned model could not be saved to {folder} ({type(error).__name__}: {reason}); "
            "its measurements are in result.json, run again with room on the disk to save it"
        )
    return None


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _check_lengths(config: RunConfig, model: Any) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    lengths = {}
    if config.method != "dense":
        lengths["calibration"] = config.calibration.seq_len
    if config.evaluation.datasets:
        lengths["evaluation"] = config.evaluation.seq_len
    for name, length in lengths.items():
        if limit is not None and length > limit:
            raise ModelError(f"{name}.seq_len={length} is longer than the model's {limit} positions; lower it")


def _find_blocks(
    config: RunConfig, model: Any, calibration: Windows | None, evaluation: dict[str, Windows]
) -> list[Block]:
    """The blocks, and whether the pattern and its allocation fit them."""
    windows = [calibration, *evaluation.values()]
    for part in windows:
        if part is not None:
            check_tokens(model, part.ids)
    tokens = torch.arange(64)[None] % model.get_input_embeddings().weight.shape[0]
    ids = next((part.ids for part in windows if part is not None), tokens)
    blocks = find_blocks(model, ids, config.model.exclude, config.model.prune_routers)
    if calibration is not None:
        check_pattern(blocks, config.pattern, config.allocation)
    return blocks


def _experts(layers: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> int:
    return len({(layer["block"], layer["expert"]) for layer in layers if wanted(layer)})


def _sparsity(config: RunConfig, blocks: list[Block], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Target over the pruned layers; achieved over all the blocks' matrices; and by block over its pruned layers."""

    def mean(key: str, index: int | None = None) -> float | None:
        part = [(layer[key], layer["weights"]) for layer in layers if index in (None, layer["block"])]
        return sum(value * weights for value, weights in part) / sum(weights for _, weights in part) if part else None

    uniform = config.pattern.target if layers else 0.0
    return {
        "target": uniform if config.allocation is None or not layers else mean("target_sparsity"),
        "achieved": sparsity(blocks),
        "blocks": [mean("sparsity", block.index) for block in blocks],
    }


def _calibration_windows(config: RunConfig, tokenizer: Any) -> Windows:
    options = config.calibration
    return calibration_windows(
        tokenizer, options.source, options.samples, options.seq_len, config.settings.seed, options.path
    )


def _evaluation_windows(config: RunConfig, tokenizer: Any) -> dict[str, Windows]:
    options = config.evaluation
    return {
        source: evaluation_windows(
            tokenizer,
            source,
            options.seq_len,
            options.max_windows,
            options.path_of(source),
        )
        for source in options.datasets
    }


def _evaluate(model: Any, evaluation: dict[str, Windows], config: RunConfig, name: str) -> dict[str, torch.Tensor]:
    losses = {}
    for source, windows in evaluation.items():
        with progress(f"{name} perplexity on {source}", len(windows.ids)) as advance:
            losses[source] = window_losses(model, windows.ids, config.evaluation.batch_size, advance)
    return losses


def _prune(
    config: RunConfig,
    model: Any,
    blocks: list[Block],
    calibration: Windows,
    folder: Path,
    tracker: Tracker,
    reports: list[dict[str, Any]],
) -> dict[str, float]:
    """Prune, write each layer's report as it comes, and add it to ``reports``; returns seconds by phase."""
    with (
        (folder / "blocks.jsonl").open("w", encoding="utf-8") as file,
        progress("pruning blocks", len(blocks)) as advance,
    ):

        def on_block(index: int, count: int, layers: list[dict[str, Any]]) -> None:
            file.writelines(json.dumps(layer) + "\n" for layer in layers)
            file.flush()
            reports.extend(layers)
            means = block_means(layers)
            tracker.log_block(index, means)
            error = means.get("relative_output_error", math.nan)
            log.debug("block %d of %d: mean relative output error %.4f", index + 1, count, error)
            advance(index + 1)

        options = config.method_options
        return prune(
            model,
            calibration.ids,
            get_method(config.method, **{key: getattr(options, key) for key in options.__dataclass_fields__}),
            config.pattern,
            config.compensation,
            config.settings.propagation.value,
            config.calibration.batch_size,
            config.settings.seed,
            on_block,
            blocks=blocks,
            allocation=config.allocation,
            min_expert_tokens=config.calibration.min_expert_tokens,
        )


def block_means(layers: list[dict[str, Any]]) -> dict[str, float]:
    """Means over a block's layers; a layer without a number (no token was sampled for an expert) does not count."""
    means = {}
    for key in ("sparsity", "relative_output_error", "seconds"):
        values = [layer[key] for layer in layers if layer[key] is not None]
        if values:
            means[key] = sum(values) / len(values)
    return means


def _write_windows(
    folder: Path, evaluation: dict[str, Windows], dense: dict[str, torch.Tensor], pruned: dict[str, torch.Tensor]
) -> None:
    """One row per window: its mean loss in nats, dense and pruned (NaN while unknown), and its predicted tokens."""
    parts = [
        pd.DataFrame(
            {
                "dataset": source,
                "window": range(len(losses)),
                "tokens": evaluation[source].ids.shape[1] - 1,
                "dense_loss": losses,
                "pruned_loss": pruned.get(source, torch.full_like(losses, torch.nan)),
            }
        )
        for source, losses in dense.items()
    ]
    empty = pd.DataFrame(columns=["dataset", "window", "tokens", "dense_loss", "pruned_loss"])
    (pd.concat(parts) if parts else empty).to_parquet(folder / "windows.parquet")


def _perplexities(
    evaluation: dict[str, Windows], dense: dict[str, torch.Tensor], pruned: dict[str, torch.Tensor]
) -> dict[str, Any]:
    return {
        source: {
            "dense": dense[source].mean().exp().item(),
            "pruned": pruned[source].mean().exp().item(),
            "seq_len": windows.ids.shape[1],
            "windows": windows.ids.shape[0],
            "tokens": windows.ids.shape[0] * (windows.ids.shape[1] - 1),
            **windows.info,
        }
        for source, windows in evaluation.items()
    }


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    summary = {"sparsity/achieved": record["sparsity"]["achieved"]}
    summary |= {f"coverage/{key}": record["coverage"][key] for key in ("prunable", "pruned", "skipped")}
    for source, values in record["metrics"]["perplexity"].items():
        summary[f"perplexity/{source}"] = values["pruned"]
        summary[f"perplexity/{source}_dense"] = values["dense"]
    summary |= {f"seconds/{phase}": value for phase, value in record["seconds"].items()}
    return summary | {"memory/peak_gib": record["memory"]["peak_host_bytes"] / 2**30}


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
