"""Errors of the first block's matrices by the plain implementation, for records of single matrices (blocks.jsonl).

    OMP_NUM_THREADS=1 python -m benchmarks.independent.first_block

Writes first_block.json: for each method and matrix ‖X(W − Ŵ)ᵀ‖ / ‖XWᵀ‖ over all calibration tokens. A record's
``relative_output_error`` is that of sampled tokens, held-out ones where the method has some. A perplexity takes minutes
to tens of minutes; this takes seconds a method and runs the same solver.
"""

import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.independent import plain
from benchmarks.independent.agreement import HALF, TWO_OF_FOUR, collect, first_block_call
from benchmarks.independent.plain import Inputs, Pattern, Solver
from statprune import calibration_windows, load_model

METHODS: dict[str, tuple[Solver, Pattern]] = {
    "Wanda, 50%": (plain.scored(plain.wanda), HALF),
    "ALPS, 50%": (plain.alps, HALF),
    "ALPS by row, 50%": (partial(plain.alps, whole=False), HALF),
    "ADMM, 50%": (plain.admm, HALF),
    "ADMM over the matrix, 50%": (partial(plain.admm, whole=True), HALF),
    "ADMM, 2:4": (plain.admm, TWO_OF_FOUR),
    "Wanda + least squares, 50%": (plain.with_least_squares(plain.wanda), HALF),
    "Wanda + least squares with λ 0.1, 50%": (plain.with_least_squares(plain.wanda, 0.1), HALF),
    "SparseGPT, 50%": (plain.sparsegpt, HALF),
    "Wanda + 100 swaps a row, 50%": (plain.with_swaps(plain.wanda), HALF),
}


def lost(dense: Tensor, pruned: Tensor, inputs: Inputs) -> float:
    """Norm of the outputs' change over that of the outputs."""
    change = dense - pruned.double()
    return float(((change @ inputs.gram) * change).sum() / ((dense @ inputs.gram) * dense).sum()) ** 0.5


@torch.no_grad()
def main() -> None:
    """Prune each matrix of the first block by each method, all from the same dense inputs."""
    loaded = load_model()
    windows = calibration_windows(loaded.tokenizer, "bundled", samples=16, seq_len=128, seed=0).ids
    states, arguments = first_block_call(loaded.model, windows)  # type: ignore[arg-type]  # the bundled model is one
    block = loaded.model.model.layers[0]
    linears = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    store: dict[nn.Module, list[Tensor]] = {linear: [] for linear in linears.values()}
    for linear in store:
        linear.register_forward_pre_hook(partial(collect, store))
    block(states, **arguments)
    first: dict[int, Inputs] = {}  # q, k and v share a Gram matrix, gate and up too
    errors: dict[str, dict[str, float]] = {}
    for method, (solve, pattern) in METHODS.items():
        for name, linear in linears.items():
            rows = store[linear][0]
            inputs = first.setdefault(rows.data_ptr(), Inputs(rows.double()))
            error = lost(linear.weight.double(), solve(linear.weight, inputs, pattern), inputs)
            errors.setdefault(method, {})[name] = round(error, 6)
        print(method, errors[method], flush=True)
        Path(__file__).with_name("first_block.json").write_text(json.dumps(errors, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
