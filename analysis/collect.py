"""Run records below a folder as one tidy table, and the finer files that lie beside them."""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from statprune.config.choices import NONE
from statprune.config.naming import compensation_label, pattern_tag, refinement_name
from statprune.errors import DamagedError, StatpruneError, first_line
from statprune.evaluation.accuracy import ZeroShotResult, stderr_of
from statprune.model.location import SAVED_MODEL, model_name
from statprune.runs.checksums import damage
from statprune.runs.record import CALIBRATION_PASS, RunRecord
from statprune.runs.store import DOCUMENTS, RECORD, REPORTS, WINDOWS, damaged_files, read_record

log = logging.getLogger(__name__)
MACHINE = ("device", "threads", "processes")  # what seconds depend on
PACKAGES = ("statprune", "torch", "transformers", "lm_eval")  # whose versions can change a number

Row = dict[str, Any]  # of a table, by column


@dataclass(frozen=True)
class Collected:
    """What a folder holds.

    Attributes:
        frame: a row for each number of each run; see ``rows_of``.
        skipped: a sentence for each record that is not in it.
    """

    frame: pd.DataFrame
    skipped: list[str]


def collect(folder: Path) -> Collected:
    """Every record below a folder; damaged and unfinished ones are named and left out.

    Args:
        folder: searched with everything below it.
    """
    rows: list[Row] = []
    skipped = []
    for path in sorted(folder.rglob(RECORD)):
        try:
            record = read_record(path.parent)
            if record is not None and not record.is_finished:
                skipped.append(f"{path} lacks its zero-shot evaluation and is left out; start its command again")
            elif record is not None:
                rows += _whole_rows(record, path.parent)
        except StatpruneError as error:
            skipped.append(str(error))
    for sentence in skipped:
        log.warning("%s", sentence)
    return Collected(pd.DataFrame(rows), skipped)


def collect_folders(folders: Iterable[Path]) -> pd.DataFrame:
    """The rows of ``collect`` of several folders."""
    return pd.concat([collect(folder).frame for folder in folders], ignore_index=True)


def _whole_rows(record: RunRecord, folder: Path) -> list[Row]:
    """The rows of a run.

    Raises:
        DamagedError: its files are not what was written, or its record lacks what every record has.
    """
    problems = damaged_files(folder, record)
    try:
        rows = rows_of(record, folder) if not problems else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems = [f"{RECORD} lacks {error}" if isinstance(error, KeyError) else f"{RECORD}: {first_line(error)}"]
    if problems:
        raise DamagedError(
            f"{folder} is damaged ({'; '.join(problems)}) and is left out; start its command again, or give rerun=true"
        )
    return rows


def rows_of(record: RunRecord, folder: Path) -> list[Row]:
    """A row for each number that the run measured of its model.

    Args:
        record: of a finished run.
        folder: where it lies.

    Returns:
        Rows with what was measured (``metric``: perplexity, or the standing metric of a task; ``on``: dataset, task, or
        mean for the mean accuracy), ``dense``, ``pruned``, standard errors where there are some, ``n`` windows or
        documents, and what two comparable numbers have in common (``protocol``); with every configuration key by its
        full name, ``model``, ``pattern``, ``compensation``, ``label``, ``layers`` (pruned matrices), ``seconds.*``,
        ``memory.*``, what seconds depend on (``device``, ``threads``, ``processes``, ``reused_statistics``),
        ``commit``, ``date`` and ``folder``; a mean accuracy has ``averaged``, the metric of each task that it is of. A
        perplexity has ``kl`` (divergence from the dense model in nats per token, infinite where it is not finite),
        ``top1`` (share of tokens for which both models agree) and ``quantized`` (of the model that the run ends with,
        quantised), an accuracy ``flips`` (share of documents whose answer changed between right and wrong); they are
        missing where they were not measured.
    """
    about = _about(record, folder)
    versions = {name: record.environment.packages.get(name) for name in PACKAGES}
    rows = []
    for source, perplexity in record.perplexity.items():
        shared = ("seq_len", "windows", "sha256", "windows_with_bos")
        protocol = {key: getattr(perplexity, key) for key in shared} | versions
        measured = {"metric": "perplexity", "on": source, "n": perplexity.windows, "protocol": protocol}
        values = {"dense": perplexity.dense, "pruned": perplexity.pruned, "quantized": _quantized(record, source)}
        rows.append(about | measured | values | _fidelity(record, source))
    if record.zero_shot is not None:
        rows += [about | row for row in _accuracies(record.zero_shot, versions)]
    return rows or [about | {"metric": None, "protocol": versions}]


def _fidelity(record: RunRecord, source: str) -> Row:
    own = (record.fidelity or {}).get(source)
    if own is None:
        return {"kl": None, "top1": None}
    return {"kl": math.inf if own.divergence is None else own.divergence, "top1": own.agreement}


def _quantized(record: RunRecord, source: str) -> float | None:
    """The perplexity of the quantised model, infinite where it is not finite; None where none was measured."""
    own = record.quantization
    if own is None:
        return None
    value = (own.pruned or own.dense).perplexity.get(source)
    return math.inf if value is None else value


def windows(folder: Path) -> pd.DataFrame:
    """The loss of every evaluation window of a run, dense and pruned: mean nats a token.

    Raises:
        DamagedError: they are not what the run wrote.
    """
    return _table(folder, WINDOWS)


def documents(folder: Path) -> pd.DataFrame:
    """The answer to every document of a run's zero-shot tasks, dense and pruned, a row for each metric.

    Raises:
        DamagedError: they are not what the run wrote.
    """
    return _table(folder, DOCUMENTS)


def layers(folder: Path) -> pd.DataFrame:
    """What a run reported of every matrix it pruned.

    Raises:
        DamagedError: they are not what the run wrote.
    """
    return _table(folder, REPORTS)


def _table(folder: Path, name: str) -> pd.DataFrame:
    """A file of a run.

    Raises:
        FileNotFoundError: there is none, and the record knows of none.
        DamagedError: it is not what the run wrote.
    """
    record = read_record(folder)
    expected = record.files if record is not None else {}
    if problems := damage(folder, {key: value for key, value in expected.items() if key == name}):
        raise DamagedError(f"{folder} is damaged ({problems[0]}); start its command again, or give rerun=true")
    try:
        return pd.read_json(folder / name, lines=True) if name == REPORTS else pd.read_parquet(folder / name)
    except FileNotFoundError:
        raise
    except Exception as error:  # of pyarrow and pandas, which have errors of many kinds for such files
        raise DamagedError(f"{folder} is damaged ({name} can't be read: {first_line(error)}); run it again") from error


def label_of(method: str, compensation: str, refinement: str = NONE) -> str:
    """A method with its refinement and its compensation, as a person writes it."""
    return " + ".join([method, *(stage for stage in (refinement, compensation) if stage != NONE)])


def _about(record: RunRecord, folder: Path) -> Row:
    """What all rows of a run have in common."""
    config, environment = record.config, record.environment
    method, compensation = config["method"]["name"], compensation_label(config["compensation"])
    return {
        **_leaves(config),
        "folder": str(folder),
        "config_hash": record.config_hash,
        "model": _model(record),
        "pattern": pattern_tag(config["sparsity"], method),
        "method": method,
        "compensation": compensation,
        "label": label_of(method, compensation, refinement_name(config)),
        "achieved": record.sparsity.achieved,
        "layers": _count_reports(folder),
        **{f"seconds.{name}": value for name, value in record.seconds.items()},
        **{f"memory.{name}": value for name, value in vars(record.memory).items()},
        "device": environment.device,
        "threads": environment.threads,
        "processes": environment.processes,
        "reused_statistics": CALIBRATION_PASS in record.reused,
        "commit": environment.commit,
        "date": record.date,
    }


def _model(record: RunRecord) -> str:
    typed: str = record.config["model"]["path"]
    name = model_name(typed)
    if name == SAVED_MODEL:  # a relative path, perhaps, which leads to another place from here
        name = model_name(record.paths.get("model.path", typed))
    return name.removesuffix(".gguf")


def _count_reports(folder: Path) -> int:
    try:
        with (folder / REPORTS).open(encoding="utf-8") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:  # a dense run
        return 0


def _accuracies(zero_shot: ZeroShotResult, versions: dict[str, str | None]) -> list[Row]:
    shared = ("limit", "num_fewshot", "chat_template", "requests_with_bos", "requests_sha256")
    protocol = {key: getattr(zero_shot.protocol, key) for key in shared} | versions
    rows: list[Row] = []
    for name, task in zero_shot.tasks.items():
        metric, error = task.metric, stderr_of(task.metric)
        row: Row = {"metric": metric, "on": name, "n": task.documents, "limit": task.limit, "flips": task.flips}
        for side, metrics in (("dense", task.dense), ("pruned", task.pruned or {})):
            row |= {side: metrics.get(metric), f"{side}_stderr": metrics.get(error)}
        rows.append(row | {"protocol": protocol | {"version": task.version, "shots": task.shots}})
    mean, averaged = zero_shot.mean, zero_shot.averaged
    if mean.pruned is not None:
        task_versions = {name: zero_shot.tasks[name].version for name in averaged}
        task_metrics = {name: zero_shot.tasks[name].metric for name in averaged}
        rows.append(
            {
                "metric": "accuracy",
                "on": "mean",
                "n": sum(zero_shot.tasks[name].documents for name in averaged),
                "limit": zero_shot.protocol.limit,
                "dense": mean.dense,
                "pruned": mean.pruned,
                "dense_stderr": mean.dense_stderr,
                "pruned_stderr": mean.pruned_stderr,
                "flips": mean.flips,
                "averaged": task_metrics,
                "protocol": protocol | {"tasks": json.dumps(task_versions), "metrics": json.dumps(task_metrics)},
            }
        )
    return rows


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Row:
    """Values of nested mappings by full name."""
    leaves: Row = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
