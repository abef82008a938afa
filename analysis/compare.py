"""Runs side by side: how they differ, and by how much their numbers do, over the same windows and documents."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from statprune.analysis.collect import MACHINE, PACKAGES, documents, windows
from statprune.analysis.contents import other_contents
from statprune.analysis.uncertainty import Interval, paired_bootstrap
from statprune.config.naming import differing_keys
from statprune.errors import StatpruneError
from statprune.evaluation.accuracy import TaskResult
from statprune.runs.record import PerplexityResult, RunRecord
from statprune.runs.store import read_record

COST = ("offload", "activations")  # keys that change no number, but seconds and memory


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: where it lies.
        record: what it left.
    """

    folder: Path
    record: RunRecord


@dataclass(frozen=True)
class Measured:
    """A number of one run, beside the first run's.

    Attributes:
        dense: of the dense model; None where it was not measured, or is not finite.
        pruned: of the pruned model.
        interval: of the paired difference to the first run's pruned model; None where there is none.
        unpaired: why there is none, as a half sentence; None for the first run, and where there is one.
    """

    dense: float | None = None
    pruned: float | None = None
    interval: Interval | None = None
    unpaired: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; every list has an entry for each run.

    Attributes:
        runs: the folders, as they were given.
        config: differing keys; a run without a key has no value there.
        environment: what else differs: the machine, versions of packages.
        contents: sentences on paths under which runs read different contents.
        perplexity: by dataset; intervals are of the mean window loss, which is the log of the perplexity.
        fidelity: by dataset and what was measured, divergence (nats per token) or agreement (share of tokens).
        accuracy: by task, of its standing metric.
        flips: by task, share of documents whose answer changed between right and wrong.
        sparsity: achieved.
        seconds: by phase.
    """

    runs: list[Path]
    config: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    environment: dict[str, list[object]] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    perplexity: dict[str, list[Measured]] = field(default_factory=dict)
    fidelity: dict[str, dict[str, list[Measured]]] = field(default_factory=dict)
    accuracy: dict[str, list[Measured]] = field(default_factory=dict)
    flips: dict[str, list[Measured]] = field(default_factory=dict)
    sparsity: list[float] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare runs with the first of them.

    Args:
        folders: of two or more finished runs.

    Raises:
        StatpruneError: there are fewer, one is given twice, or one is no finished run.
    """
    if len(folders) < 2:
        raise StatpruneError("a single run has nothing to be compared with; give the folders of two or more runs")
    for folder in folders:
        if folder.is_file():
            raise StatpruneError(f"{folder} is a file; give the folders of runs")
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise StatpruneError(f"{folder} is given twice; give the folders of different runs")
    runs = [_finished(folder) for folder in folders]
    records = [run.record for run in runs]
    datasets = dict.fromkeys(name for record in records for name in record.perplexity)
    tasks = dict.fromkeys(name for record in records if record.zero_shot for name in record.zero_shot.tasks)
    return Comparison(
        runs=list(folders),
        config=_config_differences(records),
        environment=_environment_differences(records),
        contents=other_contents([f"run {number}" for number in range(1, len(runs) + 1)], records),
        perplexity={name: [_perplexity(name, runs[0], run) for run in runs] for name in datasets},
        fidelity=_fidelities(runs),
        accuracy={name: [_accuracy(name, runs[0], run) for run in runs] for name in tasks},
        flips=_flips(runs, tasks),
        sparsity=[record.sparsity.achieved for record in records],
        seconds=[record.seconds for record in records],
    )


def _finished(folder: Path) -> Finished:
    record = read_record(folder)
    if record is None:
        raise StatpruneError(f"{folder} holds no result.json; give the folder of a run, such as outputs/default/RUN")
    if not record.is_finished:
        raise StatpruneError(f"{folder} lacks its zero-shot evaluation; start its command again to finish it")
    return Finished(folder, record)


def _config_differences(records: Sequence[RunRecord]) -> dict[str, list[dict[str, object]]]:
    first = records[0].config
    keys = {key for record in records for key in differing_keys(first, record.config)}
    keys |= {key for key in COST if len({str(record.config.get(key)) for record in records}) > 1}
    return {key: [_value(record.config, key) for record in records] for key in sorted(keys)}


def _value(config: Mapping[str, object], key: str) -> dict[str, object]:
    """The key's value below its name; empty where the configuration has no such key."""
    value: object = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return {}
        value = value[part]
    return {key: value}


def _environment_differences(records: Sequence[RunRecord]) -> dict[str, list[object]]:
    values: dict[str, list[object]] = {
        name: [getattr(record.environment, name) for record in records] for name in MACHINE
    }
    values |= {name: [record.environment.packages.get(name) for record in records] for name in PACKAGES}
    values["reused"] = [", ".join(record.reused) or "nothing" for record in records]
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _perplexity(dataset: str, first: Finished, run: Finished) -> Measured:
    own, other = run.record.perplexity.get(dataset), first.record.perplexity.get(dataset)
    if own is None:
        return Measured(unpaired=None if run is first else "it was not measured on this text")
    if run is first:
        return Measured(own.dense, own.pruned)
    reason = "the first run was not measured on this text" if other is None else _other_windows(own, other)
    if reason is not None:
        return Measured(own.dense, own.pruned, unpaired=reason)
    paired = _paired(first, run, "window", lambda folder: _of_windows(folder, dataset, "pruned_loss"))
    return Measured(own.dense, own.pruned, *paired)


def _fidelities(runs: Sequence[Finished]) -> dict[str, dict[str, list[Measured]]]:
    """By dataset and measure; nothing of datasets on which no run measured it."""
    datasets = dict.fromkeys(name for run in runs for name in run.record.fidelity or {})
    return {
        name: {what: [_fidelity(name, what, runs[0], run) for run in runs] for what in ("divergence", "agreement")}
        for name in datasets
    }


def _fidelity(dataset: str, what: str, first: Finished, run: Finished) -> Measured:
    own, other = ((each.record.fidelity or {}).get(dataset) for each in (run, first))
    value = None if own is None else getattr(own, what)
    if run is first:
        return Measured(pruned=value)
    if own is None or other is None:
        return Measured(pruned=value, unpaired=f"{'it' if own is None else 'the first run'} did not measure fidelity")
    reason = _other_windows(run.record.perplexity[dataset], first.record.perplexity[dataset])
    if reason is not None:
        return Measured(pruned=value, unpaired=reason)
    paired = _paired(first, run, "window", lambda folder: _of_windows(folder, dataset, what))
    return Measured(None, value, *paired)


def _other_windows(own: PerplexityResult, other: PerplexityResult) -> str | None:
    """Why windows are not those of another run, as a half sentence, or None."""
    if own.sha256 != other.sha256:
        return "its text is another"
    if own.seq_len != other.seq_len:
        return f"its windows have {own.seq_len} tokens, and the first run's {other.seq_len}"
    if own.windows != other.windows:
        return f"it has {own.windows} windows, and the first run {other.windows}"
    tokens = {own.text_tokens, other.text_tokens} - {None}  # older records do not tell
    with_bos = {own.windows_with_bos, other.windows_with_bos} - {None}
    if len(with_bos) > 1 or len(tokens) > 1:
        return "its tokenizer cuts the text otherwise"
    return None


def _of_windows(folder: Path, dataset: str, column: str) -> "pd.Series[float]":
    table = windows(folder)
    return table[table["dataset"] == dataset].set_index("window")[column]


def _accuracy(task: str, first: Finished, run: Finished) -> Measured:
    own, other = _task(run, task), _task(first, task)
    if own is None:
        return Measured(unpaired=None if run is first else "it was not asked this task")
    values = own.dense.get(own.metric), (own.pruned or {}).get(own.metric)
    if run is first:
        return Measured(*values)
    if other is None or other.metric != own.metric:
        missing = other is None
        reason = (
            "the first run was not asked this task" if missing else f"its metric is {own.metric}, not the first run's"
        )
        return Measured(*values, unpaired=reason)
    metric = own.metric
    return Measured(*values, *_paired(first, run, "document", lambda folder: _answers(folder, task, metric)["pruned"]))


def _flips(runs: Sequence[Finished], tasks: Iterable[str]) -> dict[str, list[Measured]]:
    """By task; nothing of tasks of which no run knows its flips."""
    result = {name: [_flips_of(name, runs[0], run) for run in runs] for name in tasks}
    return {name: each for name, each in result.items() if any(own.pruned is not None for own in each)}


def _flips_of(task: str, first: Finished, run: Finished) -> Measured:
    own, other = _task(run, task), _task(first, task)
    value = own.flips if own is not None else None
    if run is first:
        return Measured(pruned=value)
    if own is None or other is None or own.flips is None or other.flips is None:
        return Measured(pruned=value, unpaired="one of both did not count them")
    if own.metric != other.metric:
        return Measured(pruned=value, unpaired=f"its metric is {own.metric}, not the first run's")
    metric = own.metric
    return Measured(None, value, *_paired(first, run, "document", lambda folder: _changed(folder, task, metric)))


def _task(run: Finished, name: str) -> TaskResult | None:
    return run.record.zero_shot.tasks.get(name) if run.record.zero_shot is not None else None


def _answers(folder: Path, task: str, metric: str) -> pd.DataFrame:
    table = documents(folder)
    own = table[(table["task"] == task) & (table["metric"] == metric)]
    return own.set_index(["document", "document_hash"])[["dense", "pruned"]]


def _changed(folder: Path, task: str, metric: str) -> "pd.Series[float]":
    """By how much each document's value changed."""
    table = _answers(folder, task, metric)
    return (table["pruned"] - table["dense"]).abs()


def _paired(
    first: Finished, run: Finished, unit: str, read: Callable[[Path], "pd.Series[float]"]
) -> tuple[Interval | None, str | None]:
    """The interval of two runs' paired difference, or why there is none.

    Args:
        first: the first run.
        run: another one.
        unit: window or document.
        read: gives the numbers of a run's units by what they are.
    """
    try:
        before, after = (read(each.folder) for each in (first, run))
    except (OSError, ValueError, KeyError):
        return None, f"a {unit}s.parquet can't be read"
    return _interval(before, after, unit)


def _interval(first: "pd.Series[float]", second: "pd.Series[float]", unit: str) -> tuple[Interval | None, str | None]:
    """The interval of the paired difference, or why there is none."""
    if first.empty or second.empty:
        return None, f"there is no {unit} of its own"  # a group's documents are its tasks'
    if not first.index.sort_values().equals(second.index.sort_values()):
        return None, f"its {unit}s are not the first run's"
    values = [each.to_numpy(dtype=float) for each in (first, second.reindex(first.index))]
    if not all(np.isfinite(each).all() for each in values):
        return None, f"a {unit}'s number is not finite"
    return paired_bootstrap([values[0]], [values[1]]), None
