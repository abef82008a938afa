"""Made-up rows, as ``collect`` makes them of records."""

import itertools
from typing import Any

import pandas

PROTOCOL = {"seq_len": 64, "windows": 2, "sha256": "0", "windows_with_bos": 0, "torch": "2.13.0"}
QUALITY = {"magnitude": 400, "wanda": 60, "wanda + energy": 61, "cvr + energy": 70}  # perplexity at half sparsity


def row(
    label: str = "wanda",
    pattern: str = "0.5",
    seed: int = 0,
    pruned: float = 50.0,
    seconds: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """The row of one perplexity."""
    sparsity = {"0.5": 0.5, "0.6": 0.6, "2:4": 0.5}.get(pattern, 0.0)
    return {
        "metric": "perplexity",
        "on": "bundled",
        "model": "tiny",
        "label": label,
        "method": label.split(" + ")[0],
        "pattern": pattern,
        "seed": seed,
        "achieved": sparsity,
        "dense": 30.0,
        "pruned": pruned,
        "protocol": PROTOCOL,
        "calibration.samples": 2,
        "propagation": "pruned",
        "seconds.observe": seconds / 2,
        "seconds.solve": seconds / 4,
        "seconds.propagate": seconds / 4,
        "device": "cpu (x86_64)",
        "threads": 2,
        "processes": 1,
        "reused_statistics": False,
    } | changes


def many_rows() -> pandas.DataFrame:
    """Four methods at two ratios with two seeds, 2:4, a sweep of alpha, a dense run."""
    rows = [
        row(label, pattern, seed, quality * (3 if pattern == "0.6" else 1) + seed, 2 + quality / 100 + seed)
        for (label, quality), pattern, seed in itertools.product(QUALITY.items(), ("0.5", "0.6"), (0, 1))
    ]
    rows += [row(pattern="2:4", pruned=90.0), row("dense", "dense", pruned=30.0)]
    rows += [row("cvr", pruned=80 - alpha, **{"method.alpha": alpha}) for alpha in (0.0, 0.5, 1.0)]
    return pandas.DataFrame(rows)
