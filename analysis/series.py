"""What figures draw, as plain tables: which runs form a series, their mean and spread over seeds, the Pareto front."""

import difflib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from statprune.analysis.collect import MACHINE
from statprune.analysis.uncertainty import mean_and_deviation
from statprune.config.schema import NOT_IN_HASH
from statprune.core.methods import method_names
from statprune.errors import StatpruneError
from statprune.runs.record import PRUNING_PHASES

PRUNING = tuple(f"seconds.{phase}" for phase in PRUNING_PHASES)
# protocol keys that make two perplexities incomparable; package versions rarely move one enough to see
COMPARABLE = ("seq_len", "windows", "sha256", "windows_with_bos")
# of keys that can change a pruned model
GROUPS = ("model", "calibration", "sparsity", "method", "refinement", "compensation")
# keys that the label or the pattern tells of
NAMED_KEYS = (
    "method.name",
    "refinement.name",
    "compensation.name",
    "sparsity.ratio",
    "sparsity.keep",
    "sparsity.of",
    "sparsity.allocation",
)


def perplexities(frame: pd.DataFrame, on: str) -> pd.DataFrame:
    """The rows of ``frame`` that hold the perplexity of one model on dataset ``on``.

    Raises:
        StatpruneError: there is none, or there are several models.
    """
    if frame.empty:
        raise StatpruneError("there is no run to draw; give a folder that holds finished runs")
    rows = frame[(frame.metric == "perplexity") & (frame["on"] == on)] if "on" in frame else frame.iloc[:0]
    if rows.empty:
        datasets = ", ".join(sorted(set(frame[frame.metric == "perplexity"]["on"]))) if "on" in frame else ""
        choice = datasets or "(none was measured)"
        raise StatpruneError(f"no run measured the perplexity of {on}; choose one of: {choice}")
    models = sorted(set(rows.model))
    if len(models) > 1:
        raise StatpruneError(f"one figure compares runs of one model, these have {', '.join(models)}; select one first")
    return rows.reset_index(drop=True)


OWN_KEYS = ("propagation", "gram_precision")  # outside of groups: those that change what a method does


def kind_of(pattern: str) -> str:
    """What a pattern's name has in common at every ratio: '' for '0.5', 'owl' for 'owl0.5', '2:4' for itself."""
    match = re.fullmatch(r"([a-z]*)[\d.]+", pattern)
    return match[1] if match else pattern


def name_series(rows: pd.DataFrame, shape: pd.Series, is_shown: bool = True, ignored: Sequence[str] = ()) -> pd.Series:
    """A name for each row, the same for runs that only differ in their seed and the ignored keys.

    Args:
        rows: of ``collect``.
        shape: by row, what the name says of the pattern.
        is_shown: say the shape where not all rows have the same.
        ignored: configuration keys that the figure shows by other means.

    Returns:
        The label, the shape, and every key whose value differs among the rows of the same label and shape.
    """
    protocol = pd.DataFrame([{key: row.get(key) for key in COMPARABLE} for row in rows.protocol], rows.index)
    keys = [key for key in rows if key.partition(".")[0] in GROUPS and "." in key] + [*OWN_KEYS]
    keys = [
        key for key in keys if key in rows and key not in NAMED_KEYS and key not in ignored and key not in NOT_IN_HASH
    ]
    texts = pd.concat([rows[keys], protocol], axis=1).map(_text)
    names = rows.label.astype(str)
    if is_shown and shape.nunique() > 1:
        names += shape.map(lambda text: f", {text}" if text else "")
    for _, group in texts.groupby([rows.label, shape]):
        for key in group:
            if _differs(group[key]):
                names[group.index] += [f", {key}={text}" if text else "" for text in group[key]]
    return names


def _differs(texts: pd.Series) -> bool:
    """Whether a key has several values; runs that do not have it (older ones, say) do not count."""
    return texts[texts != ""].nunique() > 1


def _text(value: object) -> str:
    """As a person writes it; a number alike whether it is stored as 1 or as 1.0; '' where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def over_seeds(rows: pd.DataFrame, name: pd.Series, x: pd.Series, value: pd.Series) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of ``value`` at each ``x`` of each series.

    Runs of the same series, x and seed are the same run made twice: the first one counts. Rows without a value (a
    perplexity that is not finite) are left out.

    Args:
        rows: of ``collect``.
        name: by row, of its series.
        x: by row.
        value: by row.

    Returns:
        Columns name, x, mean, deviation (NaN of a single seed), seeds; sorted by series (method, then name) and x.
    """
    table = pd.DataFrame({"name": name, "x": x, "value": value.astype(float), "seed": rows.seed, "label": rows.label})
    table = table[np.isfinite(table.value)].drop_duplicates(["name", "x", "seed"])
    result = []
    for (text, place), group in table.groupby(["name", "x"]):
        mean, deviation = mean_and_deviation(list(group.value))
        spread = np.nan if deviation is None else deviation
        order = method_order(group.label.iloc[0])
        result.append((order, text, place, mean, spread, len(group)))
    columns = ["order", "name", "x", "mean", "deviation", "seeds"]
    return pd.DataFrame(result, columns=columns).sort_values(columns[:3], ignore_index=True).drop(columns="order")


def method_of(name: str) -> str:
    """The method of a series: what stands before the compensation and everything else in its name."""
    return re.split(r" \+ |, ", name)[0].lower()


def method_order(name: str) -> int:
    """The place of a series' method in the registry of methods; unknown ones come last."""
    methods = method_names()
    return methods.index(method_of(name)) if method_of(name) in methods else len(methods)


def sparsity_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Perplexity against achieved sparsity; columns of ``over_seeds``. N:M patterns are series of their own."""
    rows = rows[rows.method != "dense"]
    names = name_series(rows, rows.pattern.map(kind_of))
    # seeds may round to sparsities that differ in the last digits
    achieved = rows.achieved.groupby([names, rows.pattern]).transform("mean").round(4)
    return over_seeds(rows, names, achieved, rows.pruned)


def sensitivity_table(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Perplexity against the values of a configuration key, for runs that have it; columns of ``over_seeds``.

    Raises:
        StatpruneError: no run has the key, or all have the same value.
    """
    rows = rows[rows.method != "dense"]
    if key not in rows or rows[key].isna().all():
        near = difflib.get_close_matches(key, [str(name) for name in rows], n=1)
        hint = f"; did you mean {near[0]}?" if near else "; give a configuration key such as method.alpha"
        raise StatpruneError(f"no run has the key {key}{hint}")
    rows = rows[rows[key].notna()]
    numbers = pd.to_numeric(rows[key], errors="coerce") if not _is_switch(rows[key]) else rows[key].map(lambda _: None)
    x = numbers.astype(float) if numbers.notna().all() else rows[key].map(_text)
    if x.nunique() < 2:
        raise StatpruneError(f"all runs have {key}={_text(rows[key].iloc[0])}; sweep it to draw what it changes")
    return over_seeds(rows, name_series(rows, rows.pattern, ignored=[key]), x, rows.pruned)


def _is_switch(values: pd.Series) -> bool:
    return all(isinstance(value, bool | np.bool_) for value in values)


def varied_keys(rows: pd.DataFrame) -> list[str]:
    """Configuration keys that differ among pruned runs of the same label and pattern: those a sensitivity can show."""
    rows = rows[rows.method != "dense"]
    keys = [key for key in rows if "." in key and key.partition(".")[0] in GROUPS and key not in NAMED_KEYS]
    keys += [key for key in OWN_KEYS if key in rows]
    groups = [group for _, group in rows.groupby(["label", "pattern"])]
    return [key for key in keys if any(_differs(group[key].map(_text)) for group in groups)]


def pareto_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A point for each series and pattern: columns name, pattern, seconds, perplexity, seeds, is_best.

    Seconds are those of pruning itself (observe, solve, propagate); ``is_best``: no other point of the pattern has
    fewer seconds and a lower perplexity.

    Raises:
        StatpruneError: nothing was pruned, the machines differ, or statistics were collected by another run.
    """
    rows = rows[(rows.method != "dense") & rows.pruned.notna()]
    if (reused := int(rows.reused_statistics.sum())) > 0:
        raise StatpruneError(
            f"{reused} of {len(rows)} runs used the calibration pass of another, so that their seconds hold none; "
            "run each in a process of its own to compare them"
        )
    for key in MACHINE:
        if len(values := sorted(set(rows[key].dropna().map(str)))) > 1:
            raise StatpruneError(
                f"seconds of runs with different {key} ({', '.join(values)}) can't be compared; select those of one"
            )
    missing = [key for key in PRUNING if key not in rows]
    if rows.empty or missing:
        raise StatpruneError("no run was pruned and has a finite perplexity; nothing can be held against its seconds")
    names = name_series(rows, rows.pattern, is_shown=False)
    seconds = over_seeds(rows, names, rows.pattern, rows[list(PRUNING)].sum(axis=1))
    quality = over_seeds(rows, names, rows.pattern, rows.pruned)
    table = quality.rename(columns={"x": "pattern", "mean": "perplexity"}).drop(columns="deviation")
    table["seconds"] = seconds["mean"]
    fronts = [pareto_front(group.seconds, group.perplexity) for _, group in table.groupby("pattern")]
    return table.assign(is_best=pd.concat(fronts))


def pareto_front(first: pd.Series, second: pd.Series) -> pd.Series:
    """Which points are on the front: no other is lower in one of the two numbers and not higher in the other.

    Args:
        first: one number of each point.
        second: the other.
    """
    a, b = first.to_numpy()[:, None], second.to_numpy()[:, None]
    is_beaten = (a >= a.T) & (b >= b.T) & ((a > a.T) | (b > b.T))
    return pd.Series(~is_beaten.any(axis=1), first.index)
