"""The table of a run's quantised models beside those that they were made from."""

from rich.table import Table

from statprune.runs.record import FidelityResult, QuantizationResult, QuantizedModelResult, RunRecord
from statprune.runs.wording import fidelity_shown, shown

NAMES = ("model", "perplexity", "KL (nats/token)", "top-1", "MB held", "MB packed")
MEGABYTE = 10**6


def quantization_table(record: RunRecord, quantization: QuantizationResult) -> Table:
    """A row for each model and dataset, and below what quantising did to the zeros, and what it left.

    Args:
        record: of the run.
        quantization: its section.
    """
    size = quantization.group_size
    groups = "a scale per row" if size is None else f"a scale per {size} inputs"
    title = f"quantised by {quantization.library}: {quantization.scheme}, {groups}"
    table = Table(title=title, caption=_caption(quantization), caption_justify="left")
    has_many = len(record.perplexity) > 1
    for name in (*(["dataset"] if has_many else []), *NAMES):
        table.add_column(name, justify="left" if name in ("dataset", "model") else "right")
    for source in record.perplexity:
        table.add_section()
        for row in _rows(record, quantization, source):
            table.add_row(*([source] if has_many else []), *row)
    return table


def _rows(record: RunRecord, quantization: QuantizationResult, source: str) -> list[list[str]]:
    own, plain = record.perplexity[source], [_megabytes(quantization.model_bytes)] * 2
    rows = [["dense", shown(own.dense), "", "", *plain], _quantized_row("dense", quantization.dense, source)]
    if quantization.pruned is not None:
        fidelity = _fidelity((record.fidelity or {}).get(source))
        rows.append(["pruned", shown(own.pruned), *fidelity, *plain])
        rows.append(_quantized_row("pruned", quantization.pruned, source))
    return rows


def _quantized_row(name: str, model: QuantizedModelResult, source: str) -> list[str]:
    weights, fidelity = model.weights, _fidelity((model.fidelity or {}).get(source))
    sizes = _megabytes(weights.bytes), _megabytes(weights.packed_bytes)
    return [f"{name} + quantised", shown(model.perplexity.get(source)), *fidelity, *sizes]


def _fidelity(own: FidelityResult | None) -> tuple[str, str]:
    return ("not measured", "not measured") if own is None else fidelity_shown(own)


def _megabytes(number: int) -> str:
    return f"{number / MEGABYTE:,.2f}"


def _caption(quantization: QuantizationResult) -> str:
    """What became of zeros, and which weights of the blocks were left as they are."""
    last = quantization.pruned or quantization.dense
    weights = last.weights
    text = f"{weights.zeros_kept:,} of {weights.zeros:,} zeros are exactly zero afterwards"
    for reason, count in weights.left.items():
        text += f"; {count:,} weights of the blocks are not quantised: {reason}"
    return text
