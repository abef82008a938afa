"""Masks and perplexities of the bundled model, pruned on a CPU and on a GPU."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_findings import Findings, over
from statprune import (
    LoadedModel,
    calibration_windows,
    evaluation_windows,
    find_blocks,
    get_method,
    load_model,
    prune,
    statistics,
    window_losses,
)
from statprune.core.methods import ScoreMethod
from statprune.core.patterns import Group
from statprune.core.statistics import InputStatistics
from statprune.model.matrix import Block

WHAT = "bundled model, 4 windows of 256, evaluated on 4 of 256"
# of perplexity, float32. On a CPU, weights that were changed by a ten-millionth moved Wanda's by 0.6% and SparseGPT's
# by 0.8% (2026-11-29, one run each, 8 windows; no file is kept): where it is missed, look at the first block first.
MOST_APART = 0.005
TIE = 1e-4  # of a score: further apart than rounding of the first block's inputs can move two

# method, compensation, pattern: one of each kind of computation; what matters most comes first
COMPARED: dict[str, tuple[str, str | None, float | str]] = {
    "wanda": ("wanda", None, 0.5),
    "cvr + energy": ("cvr", "energy", 0.5),
    "sparsegpt": ("sparsegpt", None, 0.5),
    "admm": ("admm", None, 0.5),
    "ria": ("ria", None, 0.5),
    "wanda 2:4": ("wanda", None, "2:4"),
    "sparsegpt 2:4": ("sparsegpt", None, "2:4"),
    "wanda + moments": ("wanda", "moments", 0.5),
    "wanda + least squares": ("wanda", "least_squares", 0.5),
    "magnitude": ("magnitude", None, 0.5),
    "stade": ("stade", None, 0.5),
    "alps": ("alps", None, 0.5),
}
DTYPES = ("float32", "bfloat16")
IN_BFLOAT16 = 8  # of the methods, the first; a CPU takes seconds for each


@dataclass(frozen=True)
class Pruned:
    """What one device made of the bundled model.

    Attributes:
        perplexity: of the pruned model.
        masks: where the blocks' pruned matrices are zero, by name, on the host.
    """

    perplexity: float
    masks: dict[str, Tensor]


def agreement(findings: Findings) -> None:
    """A row for each method and precision, with the ties in the first block, whose inputs differ only by rounding."""
    loaded = {dtype: load_model(dtype=dtype) for dtype in DTYPES}
    tokenizer = loaded[DTYPES[0]].tokenizer
    windows = calibration_windows(tokenizer, samples=4, seq_len=256).ids
    evaluated = evaluation_windows(tokenizer, seq_len=256, max_windows=4).ids
    block = find_blocks(loaded["float32"], windows[:1])[0]
    seen = statistics(loaded["float32"], windows=windows, blocks=[0])
    rows = [(name, dtype) for index, name in enumerate(COMPARED) for dtype in DTYPES[: 1 + (index < IN_BFLOAT16)]]
    for name, dtype in rows:
        on_cpu, on_gpu = (_pruned(loaded[dtype], name, device, windows, evaluated) for device in ("cpu", "cuda"))
        row = {"dtype": dtype, "method": name, **compared(on_cpu, on_gpu), "widest_gap_of_exchanged_scores": None}
        if dtype != "float32":
            findings.add(row)
            continue
        gap = row["widest_gap_of_exchanged_scores"] = _widest_gap(name, block, seen, on_cpu, on_gpu)
        apart = over("the perplexities' difference", abs(row["apart"]), MOST_APART)
        findings.add(row, apart, None if gap is None else over("the widest gap of exchanged scores", gap, TIE))


def _pruned(loaded: LoadedModel, name: str, device: str, windows: Tensor, evaluated: Tensor) -> Pruned:
    method, compensation, pattern = COMPARED[name]
    model = copy.deepcopy(loaded.model).to(device)  # type: ignore[arg-type]  # transformers wraps it without its types
    prune(model, method, pattern, windows=windows, compensation=compensation)
    blocks = find_blocks(model, windows[:1])
    masks = {block.full_name(matrix): (matrix.stored == 0).cpu() for block in blocks for matrix in block.matrices}
    return Pruned(window_losses(model, evaluated).mean().exp().item(), masks)


def compared(on_cpu: Pruned, on_gpu: Pruned) -> dict[str, Any]:
    """How far two results are apart: perplexities, and entries of the masks in the first block and in all of them."""
    different = {name: int((mask != on_gpu.masks[name]).sum()) for name, mask in on_cpu.masks.items()}
    first = {name: count for name, count in different.items() if ".layers.0." in name}
    return {
        "cpu": on_cpu.perplexity,
        "gpu": on_gpu.perplexity,
        "apart": on_gpu.perplexity / on_cpu.perplexity - 1,
        "mask_entries_first_block": {name: count for name, count in first.items() if count},
        "mask_entries": sum(different.values()),
        "of": sum(mask.numel() for mask in on_cpu.masks.values()),
    }


def _widest_gap(
    name: str, block: Block, seen: Mapping[str, InputStatistics], on_cpu: Pruned, on_gpu: Pruned
) -> float | None:
    """How unlike, at most, scores are that the devices choose between in the first block.

    None for methods that have no score, and for N:M, whose rows are many groups.
    """
    method_name, _, pattern = COMPARED[name]
    method = get_method(method_name)
    if not isinstance(method, ScoreMethod) or pattern != 0.5:
        return None
    gaps = [0.0]
    for matrix in block.matrices:
        full = block.full_name(matrix)
        score = method.score(matrix.stored.float(), seen[full], method.options)
        masks = on_cpu.masks[full], on_gpu.masks[full]
        if method.group is Group.matrix:
            score, masks = score.view(1, -1), (masks[0].view(1, -1), masks[1].view(1, -1))
        gaps.append(widest_gap(score, *masks))
    return max(gaps)


def widest_gap(score: Tensor, one: Tensor, other: Tensor) -> float:
    """The largest (a - b) / a of a row's scores a, b among the entries that only one of two masks has; 0 without any.

    Args:
        score: (rows, columns).
        one: a mask, bool, of the same shape.
        other: another.
    """
    different = one != other
    highest = score.masked_fill(~different, -torch.inf).amax(1)
    lowest = score.masked_fill(~different, torch.inf).amin(1)
    gaps = ((highest - lowest) / highest)[different.any(1)]
    return float(gaps.max()) if len(gaps) else 0.0
