"""Files that are whole or not there, and what a killed process left of others."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

# half-written files, hidden states and converted checkpoints
LEFTOVERS = (".result.json.*", ".windows.parquet.*", ".documents.parquet.*", "tmp*.hidden", ".converted-*")


def write_json(path: Path, value: Any) -> None:
    """Write atomically: readers see the old file or the whole new one. What is not finite becomes null."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(_finite(value), file, indent=2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write atomically, as ``write_json`` does."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        table.to_parquet(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left in a run's folder."""
    for pattern in LEFTOVERS:
        for left in folder.glob(pattern):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
