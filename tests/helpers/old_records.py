"""Records that an earlier version of statprune wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

SCHEMA_1 = Path(__file__).parents[1] / "records" / "schema_1"
FINISHED = ("mixture", "plain", "zero_shot")
PENDING = "pending"


def copy_schema_1(folder: Path) -> Path:
    """A copy of the runs that wrote schema 1, in ``folder``; returns it."""
    return Path(shutil.copytree(SCHEMA_1, folder))


def schema_1_values(name: str) -> dict[str, Any]:
    """What the record of such a run holds, as it was written."""
    return json.loads((SCHEMA_1 / name / "result.json").read_text(encoding="utf-8"))
