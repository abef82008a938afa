"""(e) A sweep of twelve jobs in one process, against twelve processes: the same runs on the bundled model.

python -m benchmarks.sweeps [--samples 2] [--seq-len 64]
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

METHODS, PATTERNS, SEEDS = ("magnitude", "wanda", "cvr"), ("unstructured", "2_4"), (0, 1)
WINDOWS = 2  # evaluated in every run


def main() -> None:
    """Time both ways under two propagations, write the rows and print them."""
    arguments = measure.parser_of_windows(__doc__, samples=2, seq_len=64).parse_args()
    rows = [_row(propagation, arguments) for propagation in ("pruned", "dense")]
    result = {
        "what": "twelve jobs in one process against twelve processes, SmolLM2-135M, float32",
        "machine": measure.machine(("statprune", "torch", "transformers", "hydra-core")),
        "calibration": [arguments.samples, arguments.seq_len],
        "rows": rows,
    }
    measure.write(measure.RESULTS / "sweeps.json", result)
    for row in rows:
        print(
            f"propagation={row['propagation']}: sweep {row['sweep_seconds']:.0f} s, processes "
            f"{row['separate_seconds']:.0f} s, ratio {row['ratio']:.2f}, without evaluation "
            f"{row['ratio_without_evaluation']:.2f}"
        )


def _row(propagation: str, arguments: argparse.Namespace) -> dict[str, Any]:
    common = [f"calibration.samples={arguments.samples}", f"calibration.seq_len={arguments.seq_len}"]
    common += [f"evaluation.max_windows={WINDOWS}", f"evaluation.seq_len={arguments.seq_len}"]
    common += ["tracking=disabled", "cache=null", f"propagation={propagation}"]
    grid = [f"method={','.join(METHODS)}", f"sparsity={','.join(PATTERNS)}", f"seed={','.join(map(str, SEEDS))}"]
    with tempfile.TemporaryDirectory() as scratch:
        sweep, separate = Path(scratch, "sweep"), Path(scratch, "separate")
        together, evaluated_together = _timed(sweep, [["-m", *common, *grid]])
        jobs = [
            [*common, f"method={method}", f"sparsity={pattern}", f"seed={seed}"]
            for method, pattern, seed in itertools.product(METHODS, PATTERNS, SEEDS)
        ]
        alone, evaluated_alone = _timed(separate, jobs)
        if _perplexities(sweep) != _perplexities(separate):
            raise SystemExit("the sweep's perplexities are not those of separate runs")
    return {
        "propagation": propagation,
        "sweep_seconds": together,
        "separate_seconds": alone,
        "ratio": together / alone,
        "ratio_without_evaluation": (together - evaluated_together) / (alone - evaluated_alone),
    }


def _timed(folder: Path, commands: list[list[str]]) -> tuple[float, float]:
    """Seconds of all commands, and those spent evaluating."""
    folder.mkdir()
    start = time.perf_counter()
    for command in commands:
        subprocess.run([sys.executable, "-m", "statprune", *command], cwd=folder, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return seconds, sum(record["seconds"]["evaluate"] for record in _records(folder).values())


def _records(folder: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/*/*/result.json")}


def _perplexities(folder: Path) -> dict[str, Any]:
    return {name: record["perplexity"] for name, record in _records(folder).items()}


if __name__ == "__main__":
    main()
