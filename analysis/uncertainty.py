"""How sure a number is: spread over seeds, and paired bootstrap intervals of differences."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A difference and its bootstrap interval.

    Attributes:
        difference: the mean of the paired differences.
        low: lower end.
        high: upper end.
    """

    difference: float
    low: float
    high: float

    @property
    def is_apart(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.low > 0 or self.high < 0


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1); no deviation of a single value."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def paired_bootstrap(
    first: list[np.ndarray], second: list[np.ndarray], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile interval of ``second`` − ``first`` over paired units, the mean of the groups' means.

    Perplexity: one group, the windows' losses, so that the difference is that of the log-perplexities. Accuracy: a
    group for each task, the documents' answers; documents are drawn within their task, which all weigh alike.
    Several seeds are averaged unit by unit first: the interval is over units, with these seeds.

    Args:
        first: one array of units for each group.
        second: arrays of the same lengths, unit by unit of the same windows or documents.
        seed: of the resampling.
        resamples: how many.
        level: coverage.

    Raises:
        ValueError: groups or units do not pair.
    """
    if len(first) != len(second) or not first or any(a.shape != b.shape for a, b in zip(first, second, strict=True)):
        raise ValueError("only units of the same windows or documents can be paired")
    generator = np.random.default_rng(seed)
    differences = [np.asarray(b, np.float64) - np.asarray(a, np.float64) for a, b in zip(first, second, strict=True)]
    means = np.zeros(resamples)
    for units in differences:
        means += _resampled_means(units, generator, resamples) / len(differences)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(np.mean([units.mean() for units in differences])), float(low), float(high))


def _resampled_means(units: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """Means of ``resamples`` draws with replacement, some at a time: tens of thousands of documents fit into memory."""
    part = max(1, 4_000_000 // len(units))
    parts = []
    for start in range(0, resamples, part):
        drawn = generator.integers(len(units), size=(min(part, resamples - start), len(units)))
        parts.append(units[drawn].mean(axis=1))
    return np.concatenate(parts)
