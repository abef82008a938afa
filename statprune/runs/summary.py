"""The tables at the end of a run, from its record."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from statprune.config.choices import NONE
from statprune.config.naming import refinement_name
from statprune.evaluation.accuracy import TaskResult, ZeroShotResult, stderr_of
from statprune.model.coverage import Coverage, KindCoverage
from statprune.runs.quantization_table import quantization_table
from statprune.runs.record import RunRecord
from statprune.runs.wording import fidelity_shown, shown, with_error


def print_summary(record: RunRecord, folder: Path) -> None:
    """Print the tables at the end of a run.

    Args:
        record: of the run.
        folder: of the run.
    """
    console = Console()
    if not console.is_terminal:  # a file is as wide as its widest table
        console.width = 120
    console.print(_run_table(record))
    if record.quantization is not None:
        console.print(quantization_table(record, record.quantization))
    if record.zero_shot is not None:
        console.print(_accuracy_table(record.zero_shot, record.is_pruned))
    console.print(_coverage_table(record.coverage, record.is_pruned))
    here = Path.cwd()
    console.print(f"files: {folder.relative_to(here) if folder.is_relative_to(here) else folder}", soft_wrap=True)


def accuracy_line(zero_shot: ZeroShotResult, is_pruned: bool = True) -> str:
    """The mean accuracy for a line of a sweep.

    Args:
        zero_shot: of the run.
        is_pruned: False where the run only measured the model.
    """
    mean, limit = zero_shot.mean, zero_shot.protocol.limit
    if mean.dense is None or mean.pruned is None:
        return f"{len(zero_shot.tasks)} zero-shot tasks without a mean accuracy"
    text = f"zero-shot accuracy {mean.dense:.4f}" + (f" dense, {mean.pruned:.4f} pruned" if is_pruned else "")
    return text + (f" (first {limit} documents of each task)" if limit else "")


def _run_table(record: RunRecord) -> Table:
    """Quality, sparsity, seconds and memory."""
    config, sparsity, coverage = record.config, record.sparsity, record.coverage
    stages = [config["method"]["name"], refinement_name(config), config["compensation"]["name"]]
    name = " + ".join(stage for number, stage in enumerate(stages) if number != 1 or stage != NONE)
    table = Table(title=name if record.is_pruned else "measured, not pruned", show_header=False)
    for source, perplexity in record.perplexity.items():
        where = f"{source}, {perplexity.windows} windows of {perplexity.seq_len}"
        if record.is_pruned:
            table.add_row(f"perplexity dense ({where})", shown(perplexity.dense))
            table.add_row(f"perplexity pruned ({where})", shown(perplexity.pruned))
        else:  # the model as it came, which another run may have pruned
            table.add_row(f"perplexity ({where})", shown(perplexity.dense))
    _add_fidelity(table, record)
    if record.is_pruned:
        table.add_row("sparsity achieved (target)", f"{sparsity.achieved:.5f} ({sparsity.target:.6g})")
    else:
        table.add_row("sparsity (zeros counted)", f"{sparsity.achieved:.5f}")
    ratios = [ratio for ratio in sparsity.blocks if ratio is not None]
    if ratios and max(ratios) - min(ratios) > 1e-3:
        table.add_row("sparsity of blocks", f"{min(ratios):.4f} to {max(ratios):.4f}")
    if coverage.experts_with_pooled_statistics:
        table.add_row("experts with pooled statistics", f"{coverage.experts_with_pooled_statistics:,}")
    if coverage.experts_without_tokens:
        table.add_row("experts without tokens", f"{coverage.experts_without_tokens:,}")
    if (correction := record.correction) is not None:
        counts = f"{correction.corrected} ({correction.unchanged})"
        table.add_row("layers corrected (left as they were)", counts)
        if correction.output_error_before is not None:
            errors = f"{correction.output_error_before:.4f}, {correction.output_error_after:.4f}"
            table.add_row("mean relative output error before, after", errors)
    _add_saved(table, record)
    for phase, seconds in record.seconds.items():
        table.add_row(f"seconds {phase}", f"{seconds:.1f}")
    memory = record.memory
    _add_memory(table, "host", memory.peak_host_bytes, memory.predicted_host_bytes)
    _add_memory(table, "device", memory.peak_device_bytes, memory.predicted_device_bytes)
    return table


def _add_fidelity(table: Table, record: RunRecord) -> None:
    for source, fidelity in (record.fidelity or {}).items():
        divergence, agreement = fidelity_shown(fidelity)
        table.add_row(f"KL from the dense model, nats per token ({source})", divergence)
        table.add_row(f"top-1 agreement with the dense model ({source})", agreement)


def _add_saved(table: Table, record: RunRecord) -> None:
    if record.saved is not None and (sizes := record.saved.compressed) is not None:
        both = f"{sizes.compressed:,} of {sizes.dense:,} bytes ({sizes.ratio:.4f})"
        table.add_row("saved model, compressed (of dense)", both)
    if record.pushed is not None:
        table.add_row("sent to", record.pushed.commit)


def _add_memory(table: Table, where: str, peak: int, predicted: int) -> None:
    if peak:
        table.add_row(f"peak {where} memory (predicted)", f"{peak / 2**30:.2f} GiB ({predicted / 2**30:.2f})")


def _accuracy_table(zero_shot: ZeroShotResult, is_pruned: bool) -> Table:
    """A row for each task and one for the mean; ± is a standard error, the difference's over the same documents.

    Flips are the share of documents whose answer changed between right and wrong.
    """
    tasks, mean, limit = zero_shot.tasks, zero_shot.mean, zero_shot.protocol.limit
    # what all tasks have in common stands in the title, once
    metrics, shots = {task.metric for task in tasks.values()}, {str(task.shots) for task in tasks.values()}
    common = [*metrics] if len(metrics) == 1 else []
    common += [f"{count} shots" for count in shots] if len(shots) == 1 else []
    common += [f"only the first {limit} documents of each task"] if limit else []
    varying = [name for name, values in (("metric", metrics), ("shots", shots)) if len(values) > 1]
    table = Table(title="zero-shot accuracy" + (f": {', '.join(common)}" if common else ""))
    for name in ("task", *varying):
        table.add_column(name)
    sides: tuple[str, ...] = ("dense", "pruned", "difference") if is_pruned else ("accuracy",)
    sides += ("flips",) if is_pruned and any(task.flips is not None for task in tasks.values()) else ()
    for name in ("n", *sides):
        table.add_column(name, justify="right")
    for name, task in tasks.items():
        own = {"metric": task.metric, "shots": str(task.shots)}
        table.add_row(name, *(own[key] for key in varying), str(task.documents), *_task_cells(task)[: len(sides)])
    if mean.dense is not None and len(zero_shot.averaged) > 1:
        table.add_section()
        cells = [with_error(mean.dense, mean.dense_stderr), with_error(mean.pruned, mean.pruned_stderr)]
        cells += [with_error(mean.difference, mean.difference_stderr, "+"), with_error(mean.flips, None)]
        table.add_row(f"mean of {len(zero_shot.averaged)}", *("" for _ in varying), "", *cells[: len(sides)])
    return table


def _task_cells(task: TaskResult) -> list[str]:
    error = stderr_of(task.metric)
    sides = [with_error(side.get(task.metric), side.get(error)) for side in (task.dense, task.pruned or {})]
    return [*sides, with_error(task.difference, task.difference_stderr, "+"), with_error(task.flips, None)]


def _coverage_table(coverage: Coverage, is_pruned: bool) -> Table:
    table = Table(title="matrix weights of all blocks")
    table.add_column("module")
    for name in ("prunable", "pruned", "left dense") if is_pruned else ("prunable", "not prunable"):
        table.add_column(name, justify="right")
    table.add_column("reason")
    total = KindCoverage(coverage.prunable, coverage.pruned, coverage.skipped)
    for name, kind in [*coverage.kinds.items(), ("all", total)]:
        numbers = (kind.prunable, kind.pruned, kind.skipped) if is_pruned else (kind.prunable, kind.skipped)
        table.add_row(name, *(f"{number:,}" for number in numbers), ", ".join(kind.reasons))
    return table
