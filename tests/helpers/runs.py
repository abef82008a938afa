"""What runs and sweeps leave: their records, and every number that must not depend on how a run came about."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune.evaluation.accuracy import ZeroShotResult
from statprune.runs.checksums import sealed
from statprune.runs.record import FidelityResult, PerplexityResult, RunRecord, SparsityResult
from statprune.runs.store import read_record

# a job of seconds; its model is the bundled one unless another is chosen
SMALL = ("experiment=smoke", "calibration.seq_len=32", "evaluation.seq_len=32")
RECORDS = Path(__file__).parents[1] / "records"


@dataclass(frozen=True)
class RunNumbers:
    """What must not depend on how a run came about."""

    perplexity: dict[str, PerplexityResult]
    fidelity: dict[str, FidelityResult] | None
    zero_shot: ZeroShotResult | None
    sparsity: SparsityResult
    config_hash: str
    matrices: list[dict[str, Any]]


def records(folder: Path) -> dict[str, RunRecord]:
    """The records below ``outputs``, by their runs' names."""
    result = {}
    for path in folder.glob("outputs/*/*/result.json"):
        record = read_record(path.parent)
        assert record is not None
        result[path.parent.name] = record
    return result


def numbers(folder: Path) -> dict[str, RunNumbers]:
    """The numbers of the runs below ``outputs``, by their runs' names."""
    result = {}
    for name, record in records(folder).items():
        (path,) = folder.glob(f"outputs/*/{name}/blocks.jsonl")
        matrices = [json.loads(line) for line in path.read_text().splitlines()]
        for matrix in matrices:
            del matrix["seconds"]
        measured = (record.perplexity, record.fidelity, record.zero_shot, record.sparsity)
        result[name] = RunNumbers(*measured, record.config_hash, matrices)
    return result


def schema_1(name: str) -> dict[str, Any]:
    """The record of an older version: plain, mixture, zero_shot or pending."""
    values: dict[str, Any] = json.loads((RECORDS / "schema_1" / name / "result.json").read_text())
    return values


def recorded(name: str) -> RunRecord:
    """The same record, read."""
    return RunRecord.from_json(schema_1(name))


def record_text(values: dict[str, Any]) -> str:
    """A record's file with these values, as a run would write it."""
    return json.dumps(sealed(values))
