"""(f) What methods, their constants and corrections leave of single layers' outputs, on text they were not fitted to.

    python -m benchmarks.layer_errors            # all studies: a quarter of an hour on two cores
    python -m benchmarks.layer_errors rho rounds

SmolLM2-135M in float32, three of its blocks, all inputs the dense model's. Fitted to 16 windows of 512 tokens of the
bundled calibration text, or as many as a study says, and judged by 512 input rows of as many windows of the evaluation
text. An error is ‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖. Tables of docs/methods are made from the file that this writes.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import measure
from statprune import calibration_windows, evaluation_windows, load_model
from statprune.experiments.choose import candidates_of
from statprune.model.loading import LoadedModel
from statprune.pruning.trial import Trial, try_ways
from statprune.walk.discover import find_blocks

RESULT = measure.RESULTS / "layer_errors.json"
WINDOWS, SEQ_LEN = 16, 512
HALF, TWO_OF_FOUR = "sparsity=unstructured", "sparsity='2_4'"
PATTERNS = {"50%": [HALF], "2:4": [TWO_OF_FOUR], "70%": [HALF, "sparsity.ratio=0.7"]}
KINDS = {"q": "q_proj", "o": "o_proj", "gate": "gate_proj", "down": "down_proj"}

Rows = dict[str, list[str]]  # overrides by the row's name


@dataclass(frozen=True)
class Study:
    """Ways of pruning that are tried on the same inputs.

    Attributes:
        rows: what is tried.
        patterns: with each of these.
        windows: calibration windows.
        by_kind: errors of single kinds of matrices are shown, and not their mean over all.
        timed: seconds are shown, as multiples of the first row's.
    """

    rows: Rows
    patterns: tuple[str, ...] = ("50%", "2:4")
    windows: int = WINDOWS
    by_kind: bool = False
    timed: bool = False


def alone(method: str, *others: str) -> list[str]:
    """Overrides of a method without a correction."""
    return [f"method={method}", "compensation=none", *others]


def with_rho(method: str) -> Rows:
    """ADMM with other values of ρ."""
    return {f"{rho:g}": alone(method, f"method.rho={rho:g}") for rho in (0.7, 1, 1.3, 1.5, 1.7, 2, 3)}


def with_damping(method: str, values: tuple[float, ...]) -> Rows:
    """ADMM with other values of λ, and its default."""
    fixed = {f"{value:g}": alone(method, f"method.damping={value:g}") for value in values}
    return {"SparseGPT": alone("sparsegpt"), **fixed, "default": alone(method)}


def scheduled(rounds: int, ramp: int) -> list[str]:
    """ADMM with another number of rounds."""
    return alone("admm", f"method.rounds={rounds}", f"method.ramp={ramp}")


SQUARES, SAMPLED_SQUARES = "compensation=least_squares", "compensation=sampled_least_squares"
MOMENTS = ["method=wanda", "compensation=moments"]
VALUES = (0.01, 0.03, 0.1, 0.3, 0.8)
STUDIES = {
    "corrections": Study(
        {
            "none": alone("wanda"),
            "mean into kept weights (`compensation.scale=false`)": [*MOMENTS, "compensation.scale=false"],
            "scales (`compensation.mean=false`)": [*MOMENTS, "compensation.mean=false"],
            "mean and scales (`moments`)": MOMENTS,
            "mean, 64 scales a row (`moments`)": [*MOMENTS, "compensation.groups=64"],
            "least squares, 512 sampled rows (`sampled_least_squares`)": ["method=wanda", SAMPLED_SQUARES],
            "least squares (`least_squares`)": ["method=wanda", SQUARES],
            "SparseGPT, no compensation": alone("sparsegpt"),
            "SparseGPT, then `least_squares`": ["method=sparsegpt", SQUARES],
        },
        timed=True,
    ),
    "scales": Study(
        {
            "1 (the default)": MOMENTS,
            "4": [*MOMENTS, "compensation.groups=4"],
            "16": [*MOMENTS, "compensation.groups=16"],
            "64": [*MOMENTS, "compensation.groups=64"],
            "64, `compensation.shrinkage=0.1`": [*MOMENTS, "compensation.groups=64", "compensation.shrinkage=0.1"],
            "64, `compensation.shrinkage=1`": [*MOMENTS, "compensation.groups=64", "compensation.shrinkage=1"],
            "1, `compensation.floor=0.1`": [*MOMENTS, "compensation.floor=0.1"],
            "1, `compensation.floor=1e-5`": [*MOMENTS, "compensation.floor=1e-5"],
        },
        timed=True,
    ),
    "ridge and steps": Study(
        {
            "none": alone("wanda"),
            "Gram matrix, λ = 0.01": ["method=wanda", SQUARES, "compensation.damping=[0.01]"],
            "Gram matrix, λ = 0.1": ["method=wanda", SQUARES, "compensation.damping=[0.1]"],
            "Gram matrix, λ chosen (the default)": ["method=wanda", SQUARES],
            "the same, 5 steps": ["method=wanda", SQUARES, "compensation.steps=5"],
            "the same, 20 steps": ["method=wanda", SQUARES, "compensation.steps=20"],
            "sampled rows, λ = 0.3": ["method=wanda", SAMPLED_SQUARES, "compensation.damping=[0.3]"],
            "sampled rows, λ = 1": ["method=wanda", SAMPLED_SQUARES, "compensation.damping=[1]"],
            "sampled rows, λ = 3": ["method=wanda", SAMPLED_SQUARES, "compensation.damping=[3]"],
            "sampled rows, λ chosen (the default, 5 steps)": ["method=wanda", SAMPLED_SQUARES],
            "the same, 10 steps": ["method=wanda", SAMPLED_SQUARES, "compensation.steps=10"],
        },
        timed=True,
    ),
    "rho": Study(with_rho("admm"), ("50%", "2:4", "70%")),
    "rho, sampled rows": Study(with_rho("sampled_admm"), ("50%", "2:4", "70%")),
    "damping, 8,192 tokens": Study(with_damping("admm", VALUES), ("50%",), by_kind=True),
    "damping, 2,048 tokens": Study(with_damping("admm", VALUES), ("50%",), 4, by_kind=True),
    "damping, 1,024 sampled rows": Study(with_damping("sampled_admm", (*VALUES, 1.3)), ("50%",), by_kind=True),
    "rounds": Study(
        {
            "SparseGPT": alone("sparsegpt"),
            "ADMM, 6 rounds (the default)": alone("admm"),
            "5 rounds, ramp 4": scheduled(5, 4),
            "8 rounds, ramp 6": scheduled(8, 6),
            "16 rounds, ramp 12": scheduled(16, 12),
            "30 rounds, ramp 20": scheduled(30, 20),
            "16 rounds at full sparsity (ramp 1)": scheduled(16, 1),
            "6 rounds, 10 steps of conjugate gradients": alone("admm", "method.steps=10"),
            "6 rounds, then swaps, then least squares": ["method=admm", "refinement=swaps", SQUARES],
            "Wanda, swaps, least squares": ["method=wanda", "refinement=swaps", SQUARES],
            "ALPS": alone("alps"),
        },
        timed=True,
    ),
}


def measured(study: Study, loaded: LoadedModel) -> dict[str, Any]:
    """Errors and seconds of every row with every pattern, and which blocks they are of."""
    windows = calibration_windows(loaded.tokenizer, "bundled", samples=study.windows, seq_len=SEQ_LEN, seed=0).ids
    unseen = evaluation_windows(loaded.tokenizer, "bundled", seq_len=SEQ_LEN, max_windows=WINDOWS).ids
    described = {
        f"{row}, {pattern}": [*overrides, *PATTERNS[pattern]]
        for row, overrides in study.rows.items()
        for pattern in study.patterns
    }
    configs = {own.label: own.config for own in candidates_of(described, []) if own.config is not None}
    assert list(configs) == list(described)
    specs = {label: config.spec for label, config in configs.items()}
    blocks = find_blocks(loaded, windows)
    trials = try_ways(loaded.model, blocks, windows, unseen, specs, len(windows), lambda _: set())
    places = [(row, pattern) for row in study.rows for pattern in study.patterns]
    return {
        "machine": measure.machine(("statprune", "torch", "transformers")),
        "windows": [study.windows, SEQ_LEN],
        "blocks": list(trials.blocks),
        "cells": [_cell(*place, trials.ways[f"{place[0]}, {place[1]}"]) for place in places],
    }


def _cell(row: str, pattern: str, trial: Trial) -> dict[str, Any]:
    assert trial.problem is None, trial.problem
    kinds = {name: _of_kind(trial, kind).error for name, kind in KINDS.items()}
    return {"row": row, "pattern": pattern, "error": trial.error, "kinds": kinds, "seconds": trial.solve}


def _of_kind(trial: Trial, kind: str) -> Trial:
    return Trial({name: error for name, error in trial.errors.items() if name.endswith(kind)})


def table(name: str, result: dict[str, Any]) -> str:
    """A study as docs/methods shows it: the least error of each column in bold."""
    study = STUDIES[name]
    cells = {(own["row"], own["pattern"]): own for own in result["studies"][name]["cells"]}
    if study.by_kind:
        columns = {kind: {row: cells[row, study.patterns[0]]["kinds"][kind] for row in study.rows} for kind in KINDS}
    else:
        columns = {own: {row: cells[row, own]["error"] for row in study.rows} for own in study.patterns}
    shown = {title: _shown(column) for title, column in columns.items()}
    if study.timed:
        first = next(iter(study.rows))
        base = cells[first, study.patterns[0]]["seconds"]
        ratios = {row: cells[row, study.patterns[0]]["seconds"] / base for row in study.rows}
        shown["seconds / first row's"] = {row: f"{ratio:.1f}" for row, ratio in ratios.items()}
    lines = [("", *shown), ("---",) * (1 + len(shown))]
    lines += [(row, *(column[row] for column in shown.values())) for row in study.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(column: Mapping[str, float]) -> dict[str, str]:
    texts = {row: f"{error:.4f}" for row, error in column.items()}
    least = min(texts.values())
    return {row: f"**{text}**" if text == least else text for row, text in texts.items()}


def main() -> None:
    """Measure the studies, each written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"{', '.join(STUDIES)}; all of them")
    names = parser.parse_args().studies or list(STUDIES)
    loaded = load_model()
    done = json.loads(RESULT.read_text(encoding="utf-8"))["studies"] if RESULT.exists() else {}
    for name in names:
        done[name] = measured(STUDIES[name], loaded)
        result = {
            "what": "relative output errors on unseen text, three blocks of SmolLM2-135M, float32",
            "studies": {own: done[own] for own in STUDIES if own in done},
        }
        measure.write(RESULT, result)
        print(f"{name}\n\n{table(name, result)}", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
