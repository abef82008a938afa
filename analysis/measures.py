"""What a table can show: where its numbers are found in ``collect``'s rows, and how they are called and judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

LAYER_SECONDS = "layer_seconds"


@dataclass(frozen=True)
class Measure:
    """What is measured of a run.

    Attributes:
        row: the metric of the rows that have it: perplexity, or accuracy (the mean over tasks).
        column: of those rows.
        in_percent: a share that tables show in percent.
        resampled: what intervals are over: windows or documents.
        difference: what intervals are of the difference in.
        unit: of such a difference.
        axis: how figures name the number.
        higher_is_better: whether it is.
        described: how a table's note begins; ``{on}`` is the dataset, or the tasks.
    """

    row: str
    column: str
    in_percent: bool
    resampled: str
    difference: str
    unit: str
    axis: str
    higher_is_better: bool
    described: str

    def values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of runs that measured it, with its ``value``; NaN where one was not finite."""
        rows = frame[frame["metric"] == self.row].drop_duplicates("folder")
        if self.column not in rows:
            return rows.iloc[:0].assign(value=pd.Series(dtype=float))
        value = pd.to_numeric(rows[self.column])
        if self.column in ("kl", "top1"):  # kl is infinite where it was measured and is not finite
            was_measured = pd.to_numeric(rows["kl"]).notna()
        else:
            was_measured = value.notna() | (self.column == "pruned")  # None where it was not finite
        return rows.assign(value=100 * value if self.in_percent else value)[was_measured]


WINDOWS: dict[str, Any] = {"row": "perplexity", "resampled": "windows"}
PERPLEXITIES = WINDOWS | {
    "in_percent": False,
    "difference": "log-perplexity",
    "unit": "log-perplexity (nats)",
    "higher_is_better": False,
}
DOCUMENTS: dict[str, Any] = {
    "row": "accuracy",
    "resampled": "documents",
    "in_percent": True,
    "unit": "percentage points",
}
MEASURES: Mapping[str, Measure] = {
    "perplexity": Measure(
        **PERPLEXITIES,
        column="pruned",
        axis="perplexity",
        described="perplexity on {on}",
    ),
    "perplexity_quantized": Measure(
        **PERPLEXITIES,
        column="quantized",
        axis="perplexity of the quantised model",
        described="perplexity of the quantised models on {on}",
    ),
    "kl": Measure(
        **WINDOWS,
        column="kl",
        in_percent=False,
        difference="divergence",
        unit="nats per token",
        axis="KL divergence from the dense model (nats per token)",
        higher_is_better=False,
        described="Kullback-Leibler divergence from the dense model on {on} in nats per token",
    ),
    "top1": Measure(
        **WINDOWS,
        column="top1",
        in_percent=True,
        difference="agreement",
        unit="percentage points",
        axis="top-1 agreement with the dense model (%)",
        higher_is_better=True,
        described="top-1 agreement with the dense model on {on} in percent",
    ),
    "zero_shot": Measure(
        **DOCUMENTS,
        column="pruned",
        difference="accuracy",
        axis="mean accuracy (%)",
        higher_is_better=True,
        described="mean accuracy in percent over {on}",
    ),
    "flips": Measure(
        **DOCUMENTS,
        column="flips",
        difference="flips",
        axis="changed answers (%)",
        higher_is_better=False,
        described="documents in percent whose answer changed between right and wrong, mean over {on}",
    ),
}


def of_windows(metric: str, table: pd.DataFrame) -> np.ndarray:
    """What is resampled of a run's windows of one dataset.

    Args:
        metric: perplexity, perplexity_quantized, kl or top1.
        table: rows of ``windows.parquet``.
    """
    if metric == "perplexity":
        return table["pruned_loss"].to_numpy()
    if metric == "perplexity_quantized":  # a run that prunes nothing has the dense model's
        return table["pruned_quantized_loss" if "pruned_quantized_loss" in table else "dense_quantized_loss"].to_numpy()
    return table["divergence"].to_numpy() if metric == "kl" else 100 * table["agreement"].to_numpy()


def of_documents(metric: str, table: pd.DataFrame) -> np.ndarray:
    """What is resampled of a run's documents of one task and metric.

    Args:
        metric: zero_shot or flips.
        table: rows of ``documents.parquet``.
    """
    pruned = table["pruned"].to_numpy(dtype=float)
    return 100 * (pruned if metric == "zero_shot" else np.abs(pruned - table["dense"].to_numpy(dtype=float)))


def higher_is_better(metric: str) -> bool:
    """Whether a table's larger number is the better one."""
    return metric in MEASURES and MEASURES[metric].higher_is_better
