"""A sweep and its table: every method at every pattern, in one command; then a table from the records on disk.

    python examples/sweep.py

Started again, it runs what is missing and builds the table anew. Arguments are further overrides of every run, such as
``model.path=/my/model``.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from statprune.runs.store import read_record

NAME = "example_sweep"
GRID = ["method=magnitude,wanda,cvr", "sparsity=unstructured,2_4", "seed=0,1"]
SMALL = ["calibration.samples=4", "calibration.seq_len=128", "evaluation.max_windows=4", "tracking=disabled"]


def sweep(overrides: list[str]) -> Path:
    """Run the grid; the folder of its runs."""
    command = [sys.executable, "-m", "statprune", "-m", f"name={NAME}", *GRID, *SMALL, *overrides]
    subprocess.run(command, check=True)
    return Path("outputs") / NAME


def table(folder: Path) -> pd.DataFrame:
    """Perplexity by method and pattern: the mean over seeds."""
    rows = []
    for run in sorted(folder.iterdir()):
        record = read_record(run) if run.is_dir() else None
        if record is not None:
            sparsity, perplexity = record.config["sparsity"], record.perplexity["bundled"]
            pattern = f"{sparsity['keep']}:{sparsity['of']}" if sparsity["keep"] else f"{sparsity['ratio']:.0%}"
            method, compensation = record.config["method"]["name"], record.config["compensation"]["name"]
            rows.append((f"{method} + {compensation}", pattern, perplexity.dense, perplexity.pruned))
    frame = pd.DataFrame(rows, columns=["method", "pattern", "dense", "pruned"])
    return frame.pivot_table("pruned", "method", "pattern")


if __name__ == "__main__":
    print(table(sweep(sys.argv[1:])).round(2))
