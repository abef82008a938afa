"""Run records below a folder as one tidy table, and the finer files that lie beside them."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from statprune.config.naming import ORDERS, SWITCHES, pattern_tag
from statprune.errors import StatpruneError
from statprune.runs.record import stderr_of
from statprune.runs.store import BLOCKS, SCHEMA_VERSION, read_record

log = logging.getLogger(__name__)
MACHINE = ("device", "threads", "processes")  # what seconds depend on
PACKAGES = ("statprune", "torch", "transformers", "lm_eval")  # whose versions can change a number


@dataclass(frozen=True)
class Collected:
    """What was found.

    Attributes:
        frame: a row for each number of each run; see ``rows_of``.
        skipped: a sentence for each record that is not in it.
    """

    frame: pd.DataFrame
    skipped: list[str]


def collect(folder: Path) -> Collected:
    """Every record below a folder; damaged, old and unfinished ones are named and left out.

    Args:
        folder: searched with everything below it.
    """
    rows: list[dict[str, Any]] = []
    skipped = []
    for path in sorted(folder.rglob("result.json")):
        try:
            record = read_record(path.parent)
        except StatpruneError as error:
            skipped.append(str(error))
            continue
        problem = None if record is None else _problem(record, path)
        if problem is not None:
            skipped.append(problem)
        elif record is not None:
            rows += rows_of(record, path.parent)
    for sentence in skipped:
        log.warning("%s", sentence)
    return Collected(pd.DataFrame(rows), skipped)


def rows_of(record: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A row for each number that the run measured of its model.

    Args:
        record: of a finished run.
        folder: where it lies.

    Returns:
        Rows with what was measured (``metric``: perplexity, or the standing metric of a task; ``on``: dataset, task, or
        mean for the mean accuracy), ``dense``, ``pruned``, standard errors where there are some, ``n`` windows or
        documents, and what two comparable numbers have in common (``protocol``); with every configuration key by its
        full name, ``model``, ``pattern``, ``compensation``, ``label``, ``layers``, ``seconds.*``, ``memory.*``, what
        seconds depend on (``device``, ``threads``, ``processes``, ``reused_statistics``), ``date`` and ``folder``; a
        mean accuracy has ``averaged``, the metric of each task that it is of.
    """
    about = _about(record, folder)
    versions = {name: record["environment"]["packages"].get(name) for name in PACKAGES}
    rows = []
    for source, values in record["metrics"]["perplexity"].items():
        protocol = {key: values[key] for key in ("seq_len", "windows", "sha256", "begins_with_bos")} | versions
        measured = {"metric": "perplexity", "on": source, "n": values["windows"], "protocol": protocol}
        rows.append(about | measured | {side: values[side] for side in ("dense", "pruned")})
    zero_shot = record["metrics"].get("zero_shot")
    if zero_shot is not None:
        rows += [about | row for row in _accuracies(zero_shot, versions)]
    return rows or [about | {"metric": None, "protocol": versions}]


def windows(folder: Path) -> pd.DataFrame:
    """The loss of every evaluation window of a run, dense and pruned: mean nats a token."""
    return pd.read_parquet(folder / "windows.parquet")


def documents(folder: Path) -> pd.DataFrame:
    """The answer to every document of a run's zero-shot tasks, dense and pruned, a row for each metric."""
    return pd.read_parquet(folder / "documents.parquet")


def layers(folder: Path) -> pd.DataFrame:
    """What a run reported of every layer it pruned."""
    return pd.read_json(folder / BLOCKS, lines=True)


def label_of(method: str, compensation: str) -> str:
    """A method with its compensation, as a person writes it."""
    return method if compensation == "none" else f"{method} + {compensation}"


def _problem(record: dict[str, Any], path: Path) -> str | None:
    if record.get("schema_version") != SCHEMA_VERSION:
        return (
            f"{path} is of another version (schema {record.get('schema_version')}, not {SCHEMA_VERSION}) and left out; "
            "run it again"
        )
    if "pending" in record:
        return f"{path} lacks its zero-shot evaluation and is left out; start its command again"
    missing = [key for key in ("environment", "sparsity", "seconds", "memory") if key not in record]
    return f"{path} has no {', '.join(missing)} and is left out; run it again" if missing else None


def _about(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = record["config"]
    method, compensation = config["method"]["name"], _compensation(config["compensation"])
    return {
        **_flat(config),
        "folder": str(folder),
        "config_hash": record["config_hash"],
        "model": re.sub(r"\.gguf$", "", Path(config["model"]["path"]).name),
        "pattern": pattern_tag(config["sparsity"], method),
        "method": method,
        "compensation": compensation,
        "label": label_of(method, compensation),
        "achieved": record["sparsity"]["achieved"],
        "layers": _layer_count(folder),
        **{f"seconds.{name}": value for name, value in record["seconds"].items()},
        **{f"memory.{name}": value for name, value in record["memory"].items()},
        "device": record["environment"].get("device"),
        "threads": record["environment"].get("threads"),
        "processes": record["environment"].get("processes"),
        "reused_statistics": "the calibration pass" in record.get("reused", []),
        "date": record.get("date"),
    }


def _layer_count(folder: Path) -> int:
    try:
        with (folder / BLOCKS).open(encoding="utf-8") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:  # a dense run
        return 0


def _compensation(options: dict[str, Any]) -> str:
    """What is on: none, energy, columns, rows, moments, mean, scale; rows or energy first where that was asked for."""
    on = [part for part in SWITCHES if options.get(part)]
    first = [f"{part} first" for part in ORDERS if options.get(f"{part}_first")]
    if options["name"] == "none" or not (on or first):
        return "none"
    return ", ".join([on[0] if len(on) == 1 else str(options["name"]), *first])


def _accuracies(zero_shot: dict[str, Any], versions: dict[str, Any]) -> list[dict[str, Any]]:
    told = ("limit", "num_fewshot", "chat_template", "begins_with_bos", "requests_sha256")
    protocol = {key: zero_shot["protocol"][key] for key in told} | versions
    rows = []
    for name, task in zero_shot["tasks"].items():
        metric = task["metric"]
        measured = {"metric": metric, "on": name, "n": task["documents"], "limit": task["limit"]}
        measured |= {side: task[side][metric] for side in ("dense", "pruned")}
        measured |= {f"{side}_stderr": task[side].get(stderr_of(metric)) for side in ("dense", "pruned")}
        rows.append(measured | {"protocol": protocol | {"version": task["version"], "shots": task["shots"]}})
    mean = zero_shot["mean"]
    if mean["pruned"] is not None:
        count = sum(zero_shot["tasks"][name]["documents"] for name in zero_shot["averaged"])
        measured = {"metric": "accuracy", "on": "mean", "n": count, "limit": zero_shot["protocol"]["limit"]}
        measured |= {key: mean[key] for key in ("dense", "pruned", "dense_stderr", "pruned_stderr")}
        versions_of_tasks = {name: zero_shot["tasks"][name]["version"] for name in zero_shot["averaged"]}
        measured["averaged"] = {name: zero_shot["tasks"][name]["metric"] for name in zero_shot["averaged"]}
        rows.append(measured | {"protocol": protocol | {"tasks": json.dumps(versions_of_tasks)}})
    return rows


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by full name."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
