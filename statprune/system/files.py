"""Files that are whole or not there, and what a killed process left of others."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# half-written files, hidden states and converted checkpoints
LEFTOVERS = (".result.json.*", ".windows.parquet.*", ".documents.parquet.*", "tmp*.hidden", ".converted-*")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what will be ``path``: readers see the old file or the whole new one; failures leave nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write atomically and for good. What is not finite becomes null."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(_finite(value), file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


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
