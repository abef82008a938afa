"""The columns of the two tables beside a record: ``windows.parquet`` and ``documents.parquet``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowRow:
    """A row of ``windows.parquet``: one evaluation window of one dataset.

    With ``quantize`` there are columns of the quantised models, too: loss, divergence and agreement, whose names begin
    with ``dense_quantized_`` and ``pruned_quantized_``.

    Attributes:
        dataset: its name, as in ``evaluation.datasets``.
        window: its number within the dataset, from 0.
        tokens: how many were predicted, one less than the window has [tokens].
        dense_loss: mean negative log-likelihood of the dense model [nats per token].
        pruned_loss: that of the model that the run ends with; NaN while it is not measured [nats per token].
        divergence: Kullback-Leibler divergence of the pruned model's next-token distribution from the dense one's, mean
            over the tokens; no column where fidelity is not measured [nats per token].
        agreement: share of tokens for which both models find the same next token most likely; as above [fraction].
    """

    dataset: str
    window: int
    tokens: int
    dense_loss: float
    pruned_loss: float
    divergence: float
    agreement: float


@dataclass(frozen=True)
class DocumentRow:
    """A row of ``documents.parquet``: one document of a zero-shot task, by one metric.

    Attributes:
        task: its name.
        document: number of the document in the task.
        document_hash: lm-eval's hash of the document, the same in every run that asks it.
        metric: name of the metric.
        dense: the metric of the dense model's answer.
        pruned: that of the model that the run ends with; NaN while it is not asked.
    """

    task: str
    document: int
    document_hash: str
    metric: str
    dense: float
    pruned: float
