"""(b) Our phases against their floors: forwards against the model's own, solving against the bytes it has to move.

python -m benchmarks.phases [--samples 24] [--seq-len 512]
"""

import argparse
import logging
from typing import Any

from benchmarks import measure
from benchmarks.methods import prepared
from statprune import calibration_windows, load_model
from statprune.pruning.loop import prune
from statprune.walk.discover import find_blocks

RESULT = measure.RESULTS / "phases.json"
# bytes that each float32 weight must travel: read, and written pruned; with compensation, for columns and for rows,
# dense and pruned weights are read once more for the energies, and the result is written
BYTES = {"wanda": 8, "cvr+energy": 8 + 2 * 12, "sparsegpt": 8}


def main() -> None:
    """Measure each method, write the rows and print them as a table."""
    arguments = measure.parser_of_windows(__doc__).parse_args()
    logging.disable(logging.WARNING)
    rows = [_row(method, arguments) for method in BYTES]
    result = {
        "what": "phases against floors, SmolLM2-135M, float32, two forwards a block",
        "machine": measure.machine(("statprune", "torch", "transformers", "numpy")),
        "calibration": [arguments.samples, arguments.seq_len],
        "rows": rows,
    }
    measure.write(RESULT, result)
    print(table(result), end="")


def table(result: dict[str, Any]) -> str:
    """The rows as docs/results/speed.md shows them."""
    lines = ["| method | observe / forward | propagate / forward | solve, s | solve / floor | share outside forwards |"]
    lines.append(f"| ---{' | ---:' * 5} |")
    for row in result["rows"]:
        names = ("observe_over_forward", "propagate_over_forward", "solve_seconds", "solve_over_floor", "other_share")
        lines.append(f"| {row['method'].replace('+', ' + ')} | {' | '.join(f'{row[name]:.2f}' for name in names)} |")
    return "\n".join(lines) + "\n"


def _row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    loaded = load_model()
    model = loaded.model
    windows = calibration_windows(loaded.tokenizer, "bundled", arguments.samples, arguments.seq_len).ids
    measure.warm_up(model, windows)
    forward = min(measure.plain_forward_seconds(model, windows) for _ in range(2))
    bandwidth = measure.copy_bandwidth()
    blocks = find_blocks(model, windows)
    phases = prune(model, windows, prepared(name), blocks=blocks).seconds
    floor = sum(matrix.weights for block in blocks for matrix in block.matrices) * BYTES[name] / bandwidth
    total = sum(phases.values())
    # the second walk through the blocks leaves the last one out; it is what a forward of them costs
    walk = phases["propagate"] * len(blocks) / (len(blocks) - 1)
    return {
        "method": name,
        "plain_forward_seconds": forward,
        "bandwidth_bytes_per_second": bandwidth,
        "phases": phases,
        "observe_over_forward": phases["observe"] / forward,
        "propagate_over_forward": phases["propagate"] / forward,
        "solve_seconds": phases["solve"],
        "solve_floor_seconds": floor,
        "solve_over_floor": phases["solve"] / floor,
        "other_share": (total - walk - phases["propagate"]) / total,
    }


if __name__ == "__main__":
    main()
