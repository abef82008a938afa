"""A comparison of runs as tables of 80 columns, and as plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from statprune.analysis.compare import Comparison, Measured
from statprune.runs.record import PRUNING_PHASES
from statprune.runs.wording import shown, with_error
from statprune.system.files import finite

WIDTH = 80
FROM = {"divergence": "from", "agreement": "with"}


def print_comparison(comparison: Comparison) -> None:
    """Print who the runs are, what differs, and their numbers; runs are numbered as they were given."""
    console = Console(width=WIDTH, highlight=False, markup=False)
    for number, folder in enumerate(comparison.runs, 1):
        console.print(f"run {number}: {folder}", soft_wrap=True)
    differences = {key: [_cell(own, key) for own in each] for key, each in comparison.config.items()}
    _print_by_key(console, "configuration", differences, "The configurations do not differ in what changes a number.")
    for sentence in comparison.contents:
        console.print(f"{sentence}.", soft_wrap=True)
    environment = {key: [_text(value) for value in values] for key, values in comparison.environment.items()}
    _print_by_key(console, "environment", environment, "")
    for name, numbers in comparison.perplexity.items():
        _print_numbers(console, f"perplexity on {name}", numbers, "mean loss (95%)")
    for name, measured in comparison.fidelity.items():
        for what, numbers in measured.items():
            unit = " (nats per token)" if what == "divergence" else ""
            _print_numbers(console, f"{what} {FROM[what]} dense on {name}{unit}", numbers, f"{what} (95%)", ("pruned",))
    for name, numbers in comparison.accuracy.items():
        _print_numbers(console, f"accuracy on {name}", numbers, "accuracy (95%)")
    for name, numbers in comparison.flips.items():
        _print_numbers(console, f"changed answers on {name}", numbers, "flips (95%)", ("pruned",))
    console.print(_cost(comparison))
    if "device" in comparison.environment or "threads" in comparison.environment or "reused" in comparison.environment:
        console.print("Seconds are of different machines or shared work: they say little about the methods.")


def to_json(comparison: Comparison) -> str:
    """The comparison as JSON; a key that a run's configuration lacks is absent there, a number without one is null."""
    values: dict[str, object] = asdict(comparison) | {"runs": [str(folder) for folder in comparison.runs]}
    values["config"] = [
        {key: value for each in comparison.config.values() for key, value in each[number].items()}
        for number in range(len(comparison.runs))
    ]
    return json.dumps(finite(values), indent=2)


def _print_by_key(console: Console, title: str, values: Mapping[str, Sequence[str]], otherwise: str) -> None:
    """A row for each key, a column for each run."""
    if not values:
        if otherwise:
            console.print(otherwise)
        return
    table = Table(title=title, title_justify="left")
    table.add_column("key", overflow="fold")
    for number in range(1, len(next(iter(values.values()))) + 1):
        table.add_column(f"run {number}", overflow="fold")
    for key, each in values.items():
        table.add_row(key, *each)
    console.print(table)


def _print_numbers(
    console: Console, title: str, numbers: Sequence[Measured], what: str, sides: Sequence[str] = ("dense", "pruned")
) -> None:
    """A row for each run; below it why differences are missing."""
    table = Table(title=title, title_justify="left")
    is_loss = title.startswith("perplexity")
    for column in ("run", *sides, f"difference to run 1 in {what}"):
        table.add_column(column, justify="right", overflow="fold")
    for number, each in enumerate(numbers, 1):
        values = [getattr(each, side) for side in sides]
        cells = [shown(value) if is_loss else with_error(value, None) for value in values]
        if each.dense is None and each.pruned is None and (each.unpaired or number == 1):
            cells = [""] * len(sides)
        table.add_row(str(number), *cells, interval_text(each))
    console.print(table)
    for number, each in enumerate(numbers, 1):
        if each.unpaired is not None:
            console.print(f"Run {number} is not paired with run 1: {each.unpaired}.")


def interval_text(number: Measured) -> str:
    """A paired difference with its interval; empty where there is none."""
    if (interval := number.interval) is None:
        return ""
    return f"{interval.difference:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _cost(comparison: Comparison) -> Table:
    table = Table(title="sparsity and seconds", title_justify="left")
    for column in ("run", "sparsity", "seconds of pruning", "seconds in all"):
        table.add_column(column, justify="right")
    for number, (sparsity, seconds) in enumerate(zip(comparison.sparsity, comparison.seconds, strict=True), 1):
        pruning = [seconds[phase] for phase in PRUNING_PHASES if phase in seconds]
        cells = [f"{sparsity:.5f}", f"{sum(pruning):.1f}" if pruning else "", f"{sum(seconds.values()):.1f}"]
        table.add_row(str(number), *cells)
    return table


def _cell(own: Mapping[str, object], key: str) -> str:
    """Empty where the run has no such key."""
    return _text(own[key]) if key in own else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
