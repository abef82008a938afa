"""What ``evaluate`` returns."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """A mean over windows.

    Attributes:
        value: the mean.
        standard_error: of the mean, from the spread of the windows; None where there is one window.
    """

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """The mean of a tensor of shape (windows,)."""
        error = values.std(correction=1).item() / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(values.mean().item(), error)


@dataclass(frozen=True)
class DatasetPerplexity:
    """Perplexity on one dataset.

    Attributes:
        value: exp of the mean loss.
        loss: mean negative log-likelihood of a predicted token, in nats.
        windows: how many there are.
        seq_len: tokens of each.
        tokens: predicted ones, of all windows.
    """

    value: float
    loss: Estimate
    windows: int
    seq_len: int
    tokens: int

    @property
    def standard_error(self) -> float | None:
        """Of the perplexity, to first order: its value times the loss's standard error."""
        return None if self.loss.standard_error is None else self.value * self.loss.standard_error


@dataclass(frozen=True)
class DatasetFidelity:
    """How near a model's predictions are to the dense model's on one dataset.

    Attributes:
        divergence: mean Kullback-Leibler divergence from the dense model's next-token distribution, in nats per token.
        agreement: share of tokens for which both models find the same next token most likely.
        windows: how many there are.
    """

    divergence: Estimate
    agreement: Estimate
    windows: int


@dataclass(frozen=True)
class TaskAccuracy:
    """Zero-shot accuracy in one lm-eval task or group.

    Attributes:
        metric: that stands for the task.
        value: of the metric; None where it is not finite.
        standard_error: lm-eval's; None where there is none.
        documents: how many were asked.
        shots: examples in each prompt.
        version: of the task.
    """

    metric: str
    value: float | None
    standard_error: float | None
    documents: int
    shots: int | None
    version: int | float | str | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model.

    Attributes:
        perplexity: by dataset.
        fidelity: to the dense model, by dataset; empty where none was given.
        zero_shot: by task.
    """

    perplexity: dict[str, DatasetPerplexity]
    fidelity: dict[str, DatasetFidelity]
    zero_shot: dict[str, TaskAccuracy]

    def to_frame(self) -> "pd.DataFrame":
        """A row for each number: what was measured (``measure``), on what, its value, standard error and count."""
        import pandas as pd

        rows: list[tuple[str, str, float | None, float | None, int]] = []
        for name, own in self.perplexity.items():
            rows.append(("perplexity", name, own.value, own.standard_error, own.windows))
        for name, fidelity in self.fidelity.items():
            for measure, number in (("divergence", fidelity.divergence), ("agreement", fidelity.agreement)):
                rows.append((measure, name, number.value, number.standard_error, fidelity.windows))
        for name, task in self.zero_shot.items():
            rows.append((task.metric, name, task.value, task.standard_error, task.documents))
        return pd.DataFrame(rows, columns=["measure", "on", "value", "standard_error", "count"])
