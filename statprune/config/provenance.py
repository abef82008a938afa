"""Where the digits of published values stand: in the paper alone, or in an earlier source with a protocol of its own.

It is computed: a value of ``tables/published.csv`` is compared, to its last digit, with those of the same metric,
model, sparsity and method in ``tables/elsewhere.csv``. ``tables/sources.yaml`` says what is known of each protocol.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

from statprune.config.table_files import TABLES, read_yaml

PAPER = "paper"  # the source of values that are found nowhere else
METRIC_OF = {  # a table's metric for each one of the files of values
    "wikitext2_perplexity": "perplexity",
    "zero_shot_mean_percent": "zero_shot",
    "seconds_one_linear_layer": "layer_seconds",
}


@dataclass(frozen=True)
class Source:
    """Something that was published.

    Attributes:
        name: as a reader finds it.
        perplexity: what is known of how its perplexities were measured; empty: it has none.
        zero_shot: the same of its mean accuracies.
        layer_seconds: the same of its seconds.
    """

    name: str
    perplexity: str = ""
    zero_shot: str = ""
    layer_seconds: str = ""

    def protocol(self, metric: str) -> str:
        """What is known of how the values of a table's metric were measured."""
        return {"perplexity": self.perplexity, "zero_shot": self.zero_shot, "layer_seconds": self.layer_seconds}[metric]


@dataclass(frozen=True)
class Elsewhere:
    """A value in another source.

    Attributes:
        source: where it stands.
        model: whose value it is there.
        value: as it is written there.
    """

    source: Source
    model: str
    value: str


@dataclass(frozen=True)
class Provenance:
    """Where a published value stands besides the paper's table.

    Attributes:
        metric: a table's.
        cell: the value's metric, model, sparsity and method in ``published.csv``.
        same: sources whose value for the same model, sparsity and method has the same digits.
        other_models: values with the same digits, sparsity and method that are another model's there; only where
            ``same`` is empty.
        differing: values for the same model, sparsity and method that have other digits.
    """

    metric: str
    cell: tuple[str, ...]
    same: tuple[Elsewhere, ...] = ()
    other_models: tuple[Elsewhere, ...] = ()
    differing: tuple[Elsewhere, ...] = ()

    @property
    def sources(self) -> list[Source]:
        """Where the digits come from: the earlier sources that have them, or else the paper."""
        return [found.source for found in self.same or self.other_models] or [_sources()[PAPER]]

    @property
    def origin(self) -> str:
        """The sources in words, and whose value it is there where that is another model."""
        names = list(dict.fromkeys(source.name for source in self.sources))
        if self.other_models:
            models = dict.fromkeys(found.model for found in self.other_models)
            return f"the value of {' and of '.join(models)} in {' and in '.join(names)}"
        return " and ".join(names) if self.same else f"{names[0]} alone, of the sources that were searched"

    @property
    def protocol(self) -> str:
        """What is known of how the value was measured."""
        return "; ".join(dict.fromkeys(source.protocol(self.metric) for source in self.sources))

    @property
    def other_values(self) -> str:
        """What other sources have for the same model, sparsity and method; empty: nothing else."""
        return "; ".join(f"{found.value} in {found.source.name}" for found in self.differing)


@dataclass(frozen=True)
class _Known:
    """The values of all other sources, by cell, and by what cells of all models have in common."""

    by_cell: dict[tuple[str, ...], list[Elsewhere]] = field(default_factory=dict)
    by_method: dict[tuple[str, ...], list[Elsewhere]] = field(default_factory=dict)


def provenance_of(row: Mapping[str, str]) -> Provenance:
    """Where the digits of a value stand.

    Args:
        row: of ``published.csv``.
    """
    known = _known()
    of_cell = known.by_cell.get(_cell(row), [])
    same = tuple(found for found in of_cell if _has_digits(row["value"], found.value))
    differing = tuple(found for found in of_cell if found not in same)
    others = known.by_method.get(_method(row), []) if not same else []
    other_models = tuple(found for found in others if _has_digits(row["value"], found.value))
    return Provenance(METRIC_OF[row["metric"]], _cell(row), same, other_models, differing)


def _has_digits(value: str, other: str) -> bool:
    """Whether another source's value is this one, rounded to as many digits where it has more."""
    return Decimal(other).quantize(Decimal(value)) == Decimal(value)


def _cell(row: Mapping[str, str]) -> tuple[str, ...]:
    return (row["metric"], row["model"], row["sparsity"], row["method"])


def _method(row: Mapping[str, str]) -> tuple[str, ...]:
    return (row["metric"], row["sparsity"], row["method"])


@lru_cache(maxsize=1)
def _sources() -> dict[str, Source]:
    return {key: Source(**values) for key, values in read_yaml(TABLES / "sources.yaml")["sources"].items()}


@lru_cache(maxsize=1)
def _known() -> _Known:
    models, known = read_yaml(TABLES / "sources.yaml")["models"], _Known()
    with (TABLES / "elsewhere.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = Elsewhere(_sources()[row["source"]], models[row["model"]], row["value"])
            known.by_cell.setdefault(_cell(row), []).append(found)
            known.by_method.setdefault(_method(row), []).append(found)
    return known
