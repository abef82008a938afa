"""Numbers of a whole run that are made from its matrices' reports, and its final numbers as W&B names them."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from statprune.config.schema import RunConfig
from statprune.data.windows import Windows
from statprune.evaluation.accuracy import ZeroShotResult, finite_or_none
from statprune.evaluation.fidelity import WindowFidelity
from statprune.model.coverage import sparsity
from statprune.model.matrix import Block
from statprune.pruning.report import MatrixReport
from statprune.runs.record import (
    CorrectionResult,
    FidelityResult,
    PerplexityResult,
    QuantizationResult,
    RunRecord,
    SparsityResult,
)

Number = float | int | None


def perplexity_results(
    evaluation: Mapping[str, Windows], dense: Mapping[str, Tensor], pruned: Mapping[str, Tensor]
) -> dict[str, PerplexityResult]:
    """By dataset: exp of the mean window loss, dense and pruned, and what it was measured on."""
    return {
        source: PerplexityResult(
            dense=dense[source].mean().exp().item(),
            pruned=pruned[source].mean().exp().item(),
            seq_len=windows.ids.shape[1],
            windows=windows.ids.shape[0],
            tokens=windows.ids.shape[0] * (windows.ids.shape[1] - 1),
            source=windows.origin.source,
            sha256=windows.origin.sha256,
            windows_with_bos=windows.origin.windows_with_bos,
            text_tokens=windows.origin.text_tokens,
            skipped_rows=windows.origin.skipped_rows,
        )
        for source, windows in evaluation.items()
    }


def fidelity_results(measured: Mapping[str, WindowFidelity]) -> dict[str, FidelityResult]:
    """By dataset: means over the windows; None where one is not finite."""
    results = {}
    for source, own in measured.items():
        divergence = finite_or_none(own.divergence.mean().item())
        # what logits that are not finite find most likely means nothing
        agreement = None if divergence is None else own.agreement.mean().item()
        results[source] = FidelityResult(divergence, agreement, len(own.divergence))
    return results


def sparsity_result(config: RunConfig, blocks: Sequence[Block], reports: Sequence[MatrixReport]) -> SparsityResult:
    """Wanted over the pruned matrices, counted over all the blocks' matrices, and by block over its pruned ones."""
    by_block = {block.index: [report for report in reports if report.block == block.index] for block in blocks}
    target: float | None = config.pattern.value.target if reports else None
    if config.allocation is not None and reports:
        target = _weighted_mean([(report.target_sparsity, report.weights) for report in reports])
    return SparsityResult(
        target=target,
        achieved=sparsity(blocks),
        blocks=[
            _weighted_mean([(report.sparsity, report.weights) for report in by_block[block.index]]) for block in blocks
        ],
    )


def correction_result(reports: Iterable[MatrixReport]) -> CorrectionResult | None:
    """What a compensation that judges itself did; None where there was none."""
    judged = [report.diagnostics for report in reports if report.diagnostics.get("corrected") is not None]
    if not judged:
        return None
    corrected = sum(numbers["corrected"] == 1 for numbers in judged)
    means = {
        key: mean([numbers[key] for numbers in judged])
        for key in ("output_error_before", "output_error_after", "mean_shift_before", "mean_shift_after")
    }
    return CorrectionResult(corrected, len(judged) - corrected, **means)


def block_means(reports: Sequence[MatrixReport]) -> dict[str, float]:
    """Means over a block's matrices; one without a number (no token was sampled for an expert) does not count."""
    means = {
        "sparsity": mean([report.sparsity for report in reports]),
        "relative_output_error": mean([report.relative_output_error for report in reports]),
        "seconds": mean([report.seconds for report in reports]),
    }
    return {key: value for key, value in means.items() if value is not None}


def finals(record: RunRecord) -> dict[str, Number]:
    """The record's final numbers under the names they have in W&B."""
    coverage, memory = record.coverage, record.memory
    result: dict[str, Number] = {
        "sparsity/achieved": record.sparsity.achieved,
        "sparsity/target": record.sparsity.target,
        "coverage/prunable": coverage.prunable,
        "coverage/pruned": coverage.pruned,
        "coverage/skipped": coverage.skipped,
    }
    for source, perplexity in record.perplexity.items():
        result |= {f"perplexity/{source}": perplexity.pruned, f"perplexity/{source}_dense": perplexity.dense}
    for source, fidelity in (record.fidelity or {}).items():
        result |= {f"divergence/{source}": fidelity.divergence, f"agreement/{source}": fidelity.agreement}
    if record.quantization is not None:
        result |= _quantized_finals(record.quantization)
    if record.zero_shot is not None:
        result |= _accuracy_finals(record.zero_shot)
    if record.correction is not None:
        result |= {f"correction/{key}": value for key, value in vars(record.correction).items()}
    result |= {f"seconds/{phase}": value for phase, value in record.seconds.items()}
    host, device = memory.peak_host_bytes / 2**30, memory.peak_device_bytes / 2**30
    return result | {
        "memory/peak_host_gib": host,
        "memory/peak_device_gib": device,
        "memory/peak_gib": device or host,
    }


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _weighted_mean(pairs: Sequence[tuple[float, int]]) -> float | None:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs) if pairs else None


def _quantized_finals(quantization: QuantizationResult) -> dict[str, Number]:
    """Of the quantised models, under the names of the others' with an ending."""
    result: dict[str, Number] = {"bytes/dense": quantization.model_bytes}
    for model, ending in ((quantization.dense, "_dense_quantized"), (quantization.pruned, "_quantized")):
        if model is None:
            continue
        result |= {f"perplexity/{source}{ending}": value for source, value in model.perplexity.items()}
        for source, own in (model.fidelity or {}).items():
            result |= {f"divergence/{source}{ending}": own.divergence, f"agreement/{source}{ending}": own.agreement}
        result |= {"bytes/quantized": model.weights.bytes, "bytes/quantized_packed": model.weights.packed_bytes}
    return result


def _accuracy_finals(zero_shot: ZeroShotResult) -> dict[str, Number]:
    """Every metric of every task, and the mean accuracy."""
    result: dict[str, Number] = {}
    for name, task in zero_shot.tasks.items():
        for metrics, suffix in ((task.pruned or {}, ""), (task.dense, "_dense")):
            result |= {f"zero_shot/{name}/{metric}{suffix}": value for metric, value in metrics.items()}
        if task.flips is not None:
            result[f"zero_shot/{name}/flips"] = task.flips
    result |= {f"zero_shot/mean/{key}": value for key, value in vars(zero_shot.mean).items()}
    return result | {"zero_shot/limit": zero_shot.protocol.limit}
