"""One run: model → calibration tokens → prune → save → evaluate → record."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from statprune.blocks import check_chain
from statprune.calibration import Windows, calibration_windows, evaluation_windows
from statprune.config import RunConfig
from statprune.console import progress
from statprune.errors import ModelError
from statprune.evaluate.perplexity import window_losses
from statprune.methods import get_method
from statprune.models import coverage, decoder_blocks, load_model, save_model, sparsity
from statprune.prune import check_pattern, prune
from statprune.results import SCHEMA_VERSION, environment, memory, write_json
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
    blocks = decoder_blocks(model)
    covered = coverage(blocks)
    if covered["skipped"]:
        log.warning("left dense: %d weights in %s", covered["skipped"], ", ".join(covered["skipped_names"][:5]))
    calibration = None
    if config.method != "dense":
        check_pattern(blocks, config.pattern)
        with _phase(seconds, "calibrate"):
            calibration = _calibration_windows(config, tokenizer)
            check_chain(model, blocks, calibration.ids)

    with _phase(seconds, "evaluate"):
        dense = _evaluate(model, evaluation, config, "dense")
    _write_windows(folder, evaluation, dense, {})  # kept even if a later step fails
    if calibration is not None:
        for phase, value in _prune(config, model, calibration, folder, tracker).items():
            seconds[phase] = seconds.get(phase, 0) + value
    if config.settings.save_model:
        with _phase(seconds, "save"):
            save_model(model, tokenizer, folder / "model")
    pruned = dense
    if calibration is not None:
        with _phase(seconds, "evaluate"):
            pruned = _evaluate(model, evaluation, config, "pruned")

    _write_windows(folder, evaluation, dense, pruned)
    achieved = sparsity(blocks)
    record = {
        "schema_version": SCHEMA_VERSION,
        "config": config.resolved(),
        "config_hash": config.hash(),
        "environment": environment(device),
        "metrics": {"perplexity": _perplexities(evaluation, dense, pruned)},
        "sparsity": {"target": config.pattern.target if calibration else 0.0, "achieved": achieved},
        "coverage": covered | {"pruned": covered["prunable"] if calibration else 0},
        "calibration": calibration.info if calibration else None,
        "seconds": seconds,
        "memory": memory(device),
    }
    write_json(folder / "result.json", record)
    return record


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _check_lengths(config: RunConfig, model: Any) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, length in (
        ("calibration", config.calibration.seq_len),
        ("evaluation", config.evaluation.seq_len),
    ):
        if limit is not None and length > limit:
            raise ModelError(f"{name}.seq_len={length} is longer than the model's {limit} positions; lower it")


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


def _prune(config: RunConfig, model: Any, calibration: Windows, folder: Path, tracker: Tracker) -> dict[str, float]:
    with (
        (folder / "blocks.jsonl").open("w", encoding="utf-8") as file,
        progress("pruning blocks", len(decoder_blocks(model))) as advance,
    ):

        def on_block(index: int, count: int, layers: list[dict[str, Any]]) -> None:
            file.writelines(json.dumps(layer) + "\n" for layer in layers)
            file.flush()
            tracker.log_block(index, layers)
            error = sum(layer["relative_output_error"] for layer in layers) / len(layers)
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
        )


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
    for source, values in record["metrics"]["perplexity"].items():
        summary[f"perplexity/{source}"] = values["pruned"]
        summary[f"perplexity/{source}_dense"] = values["dense"]
    summary |= {f"seconds/{phase}": value for phase, value in record["seconds"].items()}
    return summary | {"memory/peak_gib": record["memory"]["peak_host_bytes"] / 2**30}


def print_summary(record: dict[str, Any], folder: Path) -> None:
    """The table at the end of a run."""
    config = record["config"]
    table = Table(title=f"{config['method']['name']} + {config['compensation']['name']}", show_header=False)
    for source, values in record["metrics"]["perplexity"].items():
        where = f"{source}, {values['windows']} windows of {values['seq_len']}"
        table.add_row(f"perplexity dense ({where})", f"{values['dense']:.4f}")
        table.add_row(f"perplexity pruned ({where})", f"{values['pruned']:.4f}")
    table.add_row(
        "sparsity achieved (target)", f"{record['sparsity']['achieved']:.5f} ({record['sparsity']['target']})"
    )
    covered = record["coverage"]
    table.add_row("weights pruned, left dense", f"{covered['pruned']:,}, {covered['skipped']:,}")
    for phase, value in record["seconds"].items():
        table.add_row(f"seconds {phase}", f"{value:.1f}")
    table.add_row("peak host memory", f"{record['memory']['peak_host_bytes'] / 2**30:.2f} GiB")
    if record["memory"]["peak_device_bytes"]:
        table.add_row("peak device memory", f"{record['memory']['peak_device_bytes'] / 2**30:.2f} GiB")
    console = Console()
    console.print(table)
    console.print(f"files: {folder}", soft_wrap=True)


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
