"""What a run measured, as its record, its files and W&B hold it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from statprune.config.schema import RunConfig
from statprune.data.windows import Windows
from statprune.model.loading import Block, sparsity
from statprune.system.files import replacing


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """The record's final numbers under the names they have in W&B."""
    finals = {"sparsity/achieved": record["sparsity"]["achieved"], "sparsity/target": record["sparsity"]["target"]}
    finals |= {f"coverage/{key}": record["coverage"][key] for key in ("prunable", "pruned", "skipped")}
    for source, values in record["metrics"]["perplexity"].items():
        finals[f"perplexity/{source}"] = values["pruned"]
        finals[f"perplexity/{source}_dense"] = values["dense"]
    finals |= _accuracies(record["metrics"].get("zero_shot"))
    finals |= {f"correction/{key}": value for key, value in record.get("correction", {}).items()}
    finals |= {f"seconds/{phase}": value for phase, value in record["seconds"].items()}
    for where in ("host", "device"):
        finals[f"memory/peak_{where}_gib"] = record["memory"][f"peak_{where}_bytes"] / 2**30
    peak = "device" if record["memory"]["peak_device_bytes"] else "host"
    return finals | {"memory/peak_gib": finals[f"memory/peak_{peak}_gib"]}


def shown(perplexity: float | None) -> str:
    """A perplexity as people read it; one that is not finite is null in a record's file."""
    return f"{perplexity:.4f}" if perplexity is not None and math.isfinite(perplexity) else "not finite"


def stderr_of(metric: str) -> str:
    """Name of the metric's standard error, as lm-eval forms it: acc_stderr, and exact_match_stderr,filter."""
    name, comma, chosen = metric.partition(",")
    return f"{name}_stderr{comma}{chosen}"


def _accuracies(zero_shot: dict[str, Any] | None) -> dict[str, Any]:
    """Every metric of every task, and the mean accuracy."""
    if zero_shot is None:
        return {}
    finals = {}
    for name, task in zero_shot["tasks"].items():
        for side, suffix in (("pruned", ""), ("dense", "_dense")):
            for metric, value in task[side].items():
                finals[f"zero_shot/{name}/{metric}{suffix}"] = value
    for key, value in zero_shot["mean"].items():
        finals[f"zero_shot/mean/{key}"] = value
    return finals | {"zero_shot/limit": zero_shot["protocol"]["limit"]}


def perplexities(
    evaluation: dict[str, Windows], dense: dict[str, torch.Tensor], pruned: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """By dataset: exp of the mean window loss, dense and pruned, and what it was measured on."""
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


def achieved(config: RunConfig, blocks: list[Block], layers: list[dict[str, Any]]) -> dict[str, Any]:
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


def without_own_statistics(layers: list[dict[str, Any]]) -> dict[str, int]:
    """How many experts too few tokens reached, and how many none."""
    return {
        "experts_with_pooled_statistics": _experts(layers, lambda layer: layer["pooled_statistics"]),
        "experts_without_tokens": _experts(layers, lambda layer: layer["calibration_tokens"] == 0),
    }


def _experts(layers: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> int:
    return len({(layer["block"], layer["expert"]) for layer in layers if wanted(layer)})


def correction(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """How many layers a correction helped and how many it left alone, and mean errors; empty where there was none."""
    judged = [layer for layer in layers if layer.get("corrected") is not None]
    if not judged:
        return {}
    result: dict[str, Any] = {"corrected": sum(layer["corrected"] == 1 for layer in judged)}
    result["left"] = len(judged) - result["corrected"]
    for key in ("output_error_before", "output_error_after", "mean_shift_before", "mean_shift_after"):
        values = [layer[key] for layer in judged if layer[key] is not None]
        result[key] = sum(values) / len(values) if values else None
    return {"correction": result}


def block_means(layers: list[dict[str, Any]]) -> dict[str, float]:
    """Means over a block's layers; a layer without a number (no token was sampled for an expert) does not count."""
    means = {}
    for key in ("sparsity", "relative_output_error", "seconds"):
        values = [layer[key] for layer in layers if layer[key] is not None]
        if values:
            means[key] = sum(values) / len(values)
    return means


def write_windows(
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
    with replacing(folder / "windows.parquet") as file:
        (pd.concat(parts) if parts else empty).to_parquet(file)
