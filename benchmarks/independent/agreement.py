"""Compare perplexities of statprune with those of the plain implementation beside this file (plain.py, correction.py).

    OMP_NUM_THREADS=1 python -m benchmarks.independent.agreement             # the cells
    OMP_NUM_THREADS=1 python -m benchmarks.independent.agreement --variants  # what moves them: rounding, conventions
    python -m benchmarks.independent.agreement --table                       # beside statprune's, as in the docs

Of statprune only the bundled model and the tokens are used: SmolLM2-135M in float32, 16 calibration windows of 128
tokens, seed 0 (or the mean of two seeds), and the first 16 evaluation windows of 128. Every cell is written to
agreement.json as soon as it is there; cells that stand there are not run again. statprune's values are those of
docs/results/data.
"""

import argparse
import contextlib
import datetime
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from benchmarks.independent import correction, plain
from benchmarks.independent.correction import cvr, noisy, with_energy
from benchmarks.independent.plain import Inputs, Pattern, Solver
from statprune import calibration_windows, evaluation_windows, load_model

RESULTS = Path(__file__).with_name("agreement.json")
DATA = Path(__file__).parents[2] / "docs" / "results" / "data"
HALF, SIXTY, TWO_OF_FOUR, FOUR_OF_EIGHT = Pattern(0.5), Pattern(0.6), Pattern(0.5, 4), Pattern(0.5, 8)
SECTIONS = {HALF: "50%", SIXTY: "60%", TWO_OF_FOUR: "2:4", FOUR_OF_EIGHT: "4:8"}


@dataclass(frozen=True)
class Cell:
    """One perplexity.

    Attributes:
        solve: the method; None leaves the model dense.
        pattern: what is removed.
        ours: where statprune's perplexity stands: a file in docs/results/data, and its section, row and column; None
            where there is nothing to compare with.
        dtype: of a solver's repeated products; statistics and factorisations are float64.
        held_out: of so many calibration tokens neither Gram matrix nor λ knows.
        noise: relative size of normal noise on the Gram matrix' entries, to see what rounding does.
        seeds: of the calibration windows; of several, the mean of their perplexities.
    """

    solve: Solver | None
    pattern: Pattern = HALF
    ours: tuple[str, str, str, str] | None = None
    dtype: torch.dtype = torch.float32
    held_out: int = 0
    noise: float = 0.0
    seeds: tuple[int, ...] = (0,)


def compared(solve: Solver, row: str, column: str = "none", pattern: Pattern = HALF, **others: Any) -> Cell:
    """A cell beside one of docs/results/data/definitive.csv, or of sparser.csv."""
    file = "definitive" if pattern in (HALF, TWO_OF_FOUR) else "sparser"
    return Cell(solve, pattern, (file, SECTIONS[pattern], row, column), **others)


def two_seeds(solve: Solver, file: str, row: str, column: str) -> Cell:
    """A cell beside the mean of seeds 0 and 1 in one of the paper's tables at bundled scale."""
    return Cell(solve, HALF, (file, "SmolLM2-135M", row, column), seeds=(0, 1))


def gated(score: plain.Score, row: str, pattern: Pattern = HALF) -> Cell:
    """Least squares as statprune has it: 128 tokens are held out, which choose λ and may reject the fit."""
    return compared(plain.with_gated_least_squares(score), row, "least squares", pattern, held_out=128)


CELLS = {
    "dense": Cell(None, ours=("ppl", "50%", "Dense", "SmolLM2-135M")),
    "Magnitude, 50%": compared(correction.magnitude, "Magnitude"),
    "Wanda, 50%": compared(plain.scored(plain.wanda), "Wanda"),
    "RIA, 50%": compared(plain.scored(plain.ria), "RIA"),
    "CVR, 50%": compared(plain.scored(cvr()), "CVR"),
    "|W| σ, 50%": compared(plain.scored(plain.stade), "|W| σ"),
    "SparseGPT, 50%": compared(plain.sparsegpt, "SparseGPT", dtype=torch.float64),
    "ADMM, 50%": compared(plain.admm, "ADMM"),
    "ALPS, 50%": compared(plain.alps, "ALPS"),
    "Wanda + swaps, 50%": Cell(plain.with_swaps(plain.wanda), HALF, ("swaps", "50%", "Wanda + swaps", "none")),
    "Wanda, 60%": compared(plain.scored(plain.wanda), "Wanda", pattern=SIXTY),
    "CVR, 4:8": compared(plain.scored(cvr()), "CVR", pattern=FOUR_OF_EIGHT),
    "Magnitude, 2:4": compared(correction.magnitude, "Magnitude", pattern=TWO_OF_FOUR),
    "Wanda, 2:4": compared(plain.scored(plain.wanda), "Wanda", pattern=TWO_OF_FOUR),
    "CVR, 2:4": compared(plain.scored(cvr()), "CVR", pattern=TWO_OF_FOUR),
    "SparseGPT, 2:4": compared(plain.sparsegpt, "SparseGPT", pattern=TWO_OF_FOUR, dtype=torch.float64),
    "ADMM, 2:4": compared(plain.admm, "ADMM", pattern=TWO_OF_FOUR),
    "Wanda + energy, 50%": compared(with_energy(plain.wanda), "Wanda", "energy"),
    "RIA + energy, 50%": compared(with_energy(plain.ria), "RIA", "energy"),
    "CVR + energy, 50%": compared(with_energy(cvr()), "CVR", "energy"),
    "Wanda + energy, 2:4": compared(with_energy(plain.wanda), "Wanda", "energy", TWO_OF_FOUR),
    "CVR + energy, 2:4": compared(with_energy(cvr()), "CVR", "energy", TWO_OF_FOUR),
    "CVR + columns, 50%, two seeds": two_seeds(with_energy(cvr(), rows=False), "compensation", "CVR", "columns"),
    "CVR + rows, 50%, two seeds": two_seeds(with_energy(cvr(), columns=False), "compensation", "CVR", "rows"),
    "CVR with α = 1, 50%, two seeds": two_seeds(plain.scored(cvr(alpha=1)), "alpha", "CVR", "1"),
    "Wanda + least squares, 50%": gated(plain.wanda, "Wanda"),
    "STADE + least squares, 50%": gated(plain.stade, "STADE"),
    "Wanda + least squares, 2:4": gated(plain.wanda, "Wanda", TWO_OF_FOUR),
}

VARIANTS: dict[str, Cell] = {
    "Wanda + energy, 2:4, noise of 1e-7 on the score": Cell(with_energy(noisy(plain.wanda, 1e-7)), TWO_OF_FOUR),
    "Wanda + energy, 2:4, energies in float32": Cell(with_energy(plain.wanda, dtype=torch.float32), TWO_OF_FOUR),
    "Wanda, 2:4, the last of equal scores stays": Cell(
        plain.scored(correction.with_last_of_equals(plain.wanda)), TWO_OF_FOUR
    ),
    "Wanda, 2:4, noise of 1e-7 on the score": Cell(plain.scored(noisy(plain.wanda, 1e-7)), TWO_OF_FOUR),
    "Magnitude, 50%, equal weights removed from the first on": Cell(partial(correction.magnitude, begin=0.0)),
    "ADMM, 50%, mask over the whole matrix": Cell(partial(plain.admm, whole=True)),
    "Wanda + least squares, 50%, λ = 0.01": Cell(plain.with_least_squares(plain.wanda)),
    "Wanda + least squares, 2:4, λ = 0.01": Cell(plain.with_least_squares(plain.wanda), TWO_OF_FOUR),
    "STADE + least squares, 50%, λ = 0.01": Cell(plain.with_least_squares(plain.stade)),
    "SparseGPT, 50%, noise of 1e-7 on G": Cell(plain.sparsegpt, dtype=torch.float64, noise=1e-7),
}


def statprunes_perplexity(cell: Cell) -> float:
    """Statprune's value of a cell, from the file that a command wrote."""
    assert cell.ours is not None
    file, *place = cell.ours
    data = pandas.read_csv(DATA / f"{file}.csv", dtype={"column": str}).fillna({"section": ""})
    return float(data.set_index(["section", "row", "column"]).loc[tuple(place), "mean"])


def difference(value: float, base: float) -> str:
    """Of a value to another, in percent."""
    return f"{round(100 * (value / base - 1), 2) + 0.0:+.2f}%"  # not -0.00


def table(results: dict[str, Any]) -> str:
    """The cells as docs/results/agreement.md shows them."""
    lines = ["| cell | statprune | independent | difference |", "| --- | --- | --- | --- |"]
    for name, cell in CELLS.items():
        theirs, ours = results[name]["perplexity"], statprunes_perplexity(cell)
        shown = name.replace("|", "\\|")
        lines.append(f"| {shown} | {ours:.3f} | {theirs:.3f} | {difference(ours, theirs)} |")
    return "\n".join(lines) + "\n"


def variants_table(results: dict[str, Any]) -> str:
    """What moves the cells, as docs/results/agreement.md shows it."""
    lines = ["| cell | as above | changed | difference |", "| --- | --- | --- | --- |"]
    for name in filter(results.__contains__, VARIANTS):
        cell = next(own for own in CELLS if name.startswith(f"{own}, "))
        before, after = results[cell]["perplexity"], results[name]["perplexity"]
        lines.append(f"| {name} | {before:.3f} | {after:.3f} | {difference(after, before)} |")
    return "\n".join(lines) + "\n"


def collect(store: dict[nn.Module, list[Tensor]], module: nn.Module, args: tuple[Tensor, ...]) -> None:
    """A hook: keep what a linear module is fed, as (tokens, inputs)."""
    store[module].append(args[0].reshape(-1, args[0].shape[-1]))


def fed_rows(linears: list[nn.Linear], run: Callable[[], Tensor]) -> dict[nn.Module, Tensor]:
    """The rows that each linear module of a block is fed while the dense block runs over all windows."""
    store: dict[nn.Module, list[Tensor]] = {linear: [] for linear in linears}
    hooks = [linear.register_forward_pre_hook(partial(collect, store)) for linear in linears]
    run()
    for hook in hooks:
        hook.remove()
    return {linear: torch.cat(rows) for linear, rows in store.items()}


def prune(model: LlamaForCausalLM, windows: Tensor, cell: Cell) -> float:
    """Prune block by block (DESIGN 4, propagation=pruned); returns the share of zeros in the pruned matrices.

    All seven matrices of a block are judged by what the dense block is fed by the pruned blocks before it. Then the
    block is pruned, and the windows go on through the pruned block.
    """
    assert cell.solve is not None
    zeros = total = 0
    states, arguments = first_block_call(model, windows)
    for block in model.model.layers:
        linears = [module for module in block.modules() if isinstance(module, nn.Linear)]

        def forward(block: nn.Module = block, states: Tensor = states) -> Tensor:
            return torch.cat([block(part, **arguments) for part in states.split(4)])

        seen = fed_rows(linears, forward)
        shared: list[tuple[Tensor, Inputs]] = []  # q, k and v are fed the same, gate and up too
        for linear in linears:
            inputs = next((inputs for rows, inputs in shared if torch.equal(rows, seen[linear])), None)
            if inputs is None:
                inputs = Inputs(seen[linear].double(), cell.held_out, cell.noise)
                shared.append((seen[linear], inputs))
            weight = cell.solve(linear.weight.to(cell.dtype), inputs, cell.pattern)
            linear.weight.copy_(weight)
            zeros, total = zeros + int((linear.weight == 0).sum()), total + linear.weight.numel()
        states = forward()
    return zeros / total


def first_block_call(model: LlamaForCausalLM, windows: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The hidden states of all windows before the first block, and its other arguments (batches of four windows)."""
    caught: list[Tensor] = []
    arguments: dict[str, Any] = {}

    class Caught(Exception):
        pass

    def catch(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[0])
        arguments.update(kwargs)
        raise Caught

    hook = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for part in windows.split(4):
        with contextlib.suppress(Caught):
            model(part, use_cache=False)
    hook.remove()
    return torch.cat(caught), arguments


def perplexity(model: nn.Module, windows: Tensor) -> float:
    """DESIGN 4: exp of the mean over windows of the mean loss of a window's predicted tokens."""
    losses = []
    for part in windows.split(4):
        logits = model(part, use_cache=False).logits[:, :-1].double()
        loss = functional.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
        losses.append(loss.mean(1))
    return float(torch.cat(losses).mean().exp())


def measure(cells: dict[str, Cell], only: str) -> None:
    """Run the cells that agreement.json lacks."""
    loaded = load_model()
    model = loaded.model.eval()
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluation = evaluation_windows(loaded.tokenizer, "bundled", seq_len=128, max_windows=16).ids
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, cell in cells.items():
        if name in results or only not in name:
            continue
        began, values = time.perf_counter(), []
        for seed in cell.seeds:
            model.load_state_dict(dense)
            calibration = calibration_windows(loaded.tokenizer, "bundled", samples=16, seq_len=128, seed=seed).ids
            sparsity = prune(model, calibration, cell) if cell.solve else 0.0
            values.append(perplexity(model, evaluation))
        seconds, value = time.perf_counter() - began, sum(values) / len(values)
        results[name] = {
            "perplexity": round(value, 4),
            "sparsity": round(sparsity, 6),
            "seconds": round(seconds, 1),
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        }
        if len(values) > 1:
            results[name]["seeds"] = dict(zip(cell.seeds, (round(each, 4) for each in values), strict=True))
        RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        print(f"{name}: {value:.3f}, {seconds:.0f} s", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", action="store_true", help="what moves the cells, instead of the cells")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--table", action="store_true", help="print the cells that are there, and run none")
    chosen = parser.parse_args()
    if chosen.table:
        print(table(json.loads(RESULTS.read_text())), end="")
        return
    with torch.no_grad():
        measure(VARIANTS if chosen.variants else CELLS, chosen.only)


if __name__ == "__main__":
    main()
