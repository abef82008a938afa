"""A table of one's own on the tiny model: two methods, two columns, two seeds; six runs in all."""

from pathlib import Path
from typing import Any

import yaml

DESCRIBED: dict[str, Any] = {
    "title": "Mine",
    "source": "nobody's",
    "metric": "perplexity",
    "reference": "Wanda",
    "columns": {"50%": ["sparsity.ratio=0.5"], "70%": ["sparsity.ratio=0.7"]},
    "rows": {
        "Magnitude": {"overrides": ["method=magnitude", "compensation=none"], "seeds": [0]},
        "Wanda": {"overrides": ["method=wanda", "compensation=none"]},
        "Wanda again": {"overrides": ["method=wanda", "compensation=none"]},
    },
    "seeds": [0, 1],
    "scales": {"bundled": {"overrides": ["name=mine"]}},
}


def write_table(path: Path, **changes: Any) -> Path:
    """Write the table's YAML, with changed keys; returns its path."""
    path.write_text(yaml.safe_dump(DESCRIBED | changes, sort_keys=False), encoding="utf-8")
    return path


def small(model: Path) -> list[str]:
    """Overrides that let a cell take a second."""
    return [
        f"model.path={model}",
        "calibration.samples=4",
        "calibration.seq_len=32",
        "evaluation.max_windows=6",
        "cache=null",
    ]
