"""(a) statprune beside llm-compressor on the bundled model and the same windows: seconds, memory, perplexity.

    python -m benchmarks.side_by_side PEER_PYTHON [--samples 24] [--seq-len 512] [--rounds 2]

Every run is a process of its own; of several rounds the fastest counts, and all seconds are kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from statprune import calibration_windows, evaluation_windows, load_model, save_model

PACKAGES = ("statprune", "torch", "transformers", "numpy")
TWO, ONE = "pruned", "sequential"
# theirs; ours with two forwards per block, with one, and our CVR + energy with both
RUNS: list[tuple[str, str, str, str]] = [
    ("statprune", "plain_forward", "0.5", TWO),
    *(("llm-compressor", method, pattern, TWO) for method in ("wanda", "sparsegpt") for pattern in ("0.5", "2:4")),
    *(
        ("statprune", method, pattern, propagation)
        for method in ("wanda", "cvr+energy", "sparsegpt")
        for pattern in ("0.5", "2:4")
        for propagation in (TWO, ONE)
    ),
]
PEER_OF = {"wanda": "wanda", "cvr+energy": "wanda", "sparsegpt": "sparsegpt"}


def main() -> None:
    """Run every pair of rounds, write the comparison and print it as a table."""
    parser = measure.parser_of_windows(__doc__)
    parser.add_argument("peer", type=Path, help="Python of the environment that has llm-compressor")
    parser.add_argument("--evaluate", type=int, default=8, help="evaluation windows")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="methods; the plain forward is always run")
    arguments = parser.parse_args()
    wanted = [run for run in RUNS if not arguments.only or run[1] in (*arguments.only, "plain_forward")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _prepare(folder, arguments)
        rows = [row for number in range(arguments.rounds) for row in _round(folder, arguments.peer, wanted, number)]
    result: dict[str, Any] = {
        "what": "statprune beside llm-compressor, SmolLM2-135M, float32",
        "machine": measure.machine(PACKAGES),
        "calibration": [arguments.samples, arguments.seq_len],
        "evaluation": [arguments.evaluate, arguments.seq_len],
        "rows": _best(rows),
    }
    _compare(result["rows"])
    measure.write(measure.RESULTS / "side_by_side.json", result)
    print(table(result))


def _prepare(folder: Path, arguments: argparse.Namespace) -> None:
    loaded = load_model()
    save_model(loaded, folder / "model")
    calibration = calibration_windows(loaded.tokenizer, "bundled", arguments.samples, arguments.seq_len).ids
    evaluation = evaluation_windows(loaded.tokenizer, "bundled", arguments.seq_len).ids[: arguments.evaluate]
    torch.save({"calibration": calibration.clone(), "evaluation": evaluation.clone()}, folder / "tokens.pt")


def _round(folder: Path, peer: Path, wanted: list[tuple[str, str, str, str]], number: int) -> list[dict[str, Any]]:
    rows = []
    for tool, method, pattern, propagation in wanted:
        ours = tool == "statprune"
        command = [str(sys.executable if ours else peer), "-m", f"benchmarks.{'ours' if ours else 'llm_compressor'}"]
        command += [str(folder / "model"), str(folder / "tokens.pt"), str(folder / "result.json")]
        command += ["--method", method, "--pattern", pattern] + (["--propagation", propagation] if ours else [])
        done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        row = {"tool": tool, "method": method, "pattern": pattern, "propagation": propagation}
        rows.append(row | json.loads((folder / "result.json").read_text()))
        print(f"round {number}: {tool} {method} {pattern} {propagation}: {rows[-1]['seconds']:.1f} s", flush=True)
    return rows


def _best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each run: the fastest round's, with all rounds' seconds."""
    best: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("tool", "method", "pattern", "propagation"))
        fastest = best.get(key)
        seconds = [*(fastest["all_seconds"] if fastest else []), row["seconds"]]
        if fastest is None or row["seconds"] < fastest["seconds"]:
            fastest = row
        best[key] = fastest | {"all_seconds": seconds}
    return list(best.values())


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add ratios to the plain forward and to llm-compressor's method of the same cost and pattern."""
    forward = rows[0]["seconds"]
    theirs = {(row["method"], row["pattern"]): row for row in rows if row["tool"] == "llm-compressor"}
    for row in rows[1:]:
        row["seconds_over_forward"] = row["seconds"] / forward
        peer = theirs[PEER_OF[row["method"]], row["pattern"]]
        row["seconds_over_peer"] = row["seconds"] / peer["seconds"]
        row["memory_over_peer"] = row["memory_above_model_bytes"] / peer["memory_above_model_bytes"]


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| tool | method | pattern | forwards per block | seconds | of theirs | MiB above the model | of theirs | ppl |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in result["rows"][1:]:
        forwards = {"pruned": "2", "sequential": "1"}[row["propagation"]] if row["tool"] == "statprune" else "2"
        cells = [row["tool"], row["method"], row["pattern"], forwards, f"{row['seconds']:.1f}"]
        cells += [f"{row['seconds_over_peer']:.2f}", f"{row['memory_above_model_bytes'] / 2**20:.0f}"]
        cells += [f"{row['memory_over_peer']:.2f}", f"{row['perplexity']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    forward = result["rows"][0]
    lines.append(f"\nPlain forward: {forward['seconds']:.1f} s; dense perplexity {forward['perplexity']:.2f}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
