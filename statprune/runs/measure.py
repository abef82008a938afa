"""Stages that measure a model: window losses on datasets, and answers to zero-shot tasks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.evaluation.accuracy import Answers
from statprune.evaluation.fidelity import WindowResults
from statprune.pruning.report import experts_with_pooled_statistics, experts_without_tokens
from statprune.runs.context import RunContext
from statprune.runs.dense_cache import ANSWERS, LOSSES, dense_cache, fingerprint
from statprune.runs.environment import describe_environment
from statprune.runs.finals import (
    correction_result,
    fidelity_results,
    perplexity_results,
    sparsity_result,
)
from statprune.runs.paths import absolute_paths
from statprune.runs.prepare import MemoryPlan, Prepared
from statprune.runs.pruning_checkpoint import PruningCheckpoint, keep, remembered
from statprune.runs.quantized import Quantized, measure_quantized, quantization_result
from statprune.runs.record import MemoryResult, Pending, RunRecord
from statprune.runs.store import write_documents, write_record, write_windows
from statprune.runs.window_passes import (
    States,
    dense_losses,
    dense_states,
    window_results,
)
from statprune.system.distributed import gathered, rank
from statprune.system.memory import peak_host
from statprune.system.timing import phase
from statprune.walk.activations import Placement

if TYPE_CHECKING:  # lm-eval takes seconds to import, and most runs need none of it
    from transformers import PreTrainedModel

    from statprune.evaluation.zero_shot import ZeroShot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DenseResults:
    """What was measured of the dense model.

    Attributes:
        losses: of each window in nats, by dataset.
        answers: to the zero-shot tasks; None where there are none.
        states: last hidden states by dataset; None where no fidelity is measured.
        quantized: the model with quantised matrices; None where that is not asked for.
    """

    losses: dict[str, Tensor]
    answers: Answers | None
    states: States | None = None
    quantized: Quantized | None = None


@dataclass(frozen=True)
class Unfinished:
    """A run whose pruned model is at hand, and which still lacks answers or its last files.

    Attributes:
        record: what is measured so far.
        model: the pruned model.
        zero_shot: the tasks, rehearsed; None where there are none.
        dense_answers: the dense model's; None where there are no tasks.
        model_folder: where this process has written the pruned model; None: nowhere.
        memory: the plan, to measure peaks against; None for a run that is resumed, whose peaks are recorded.
    """

    record: RunRecord
    model: "PreTrainedModel"
    zero_shot: "ZeroShot | None"
    dense_answers: Answers | None
    model_folder: Path | None
    memory: MemoryPlan | None


def measure_dense(context: RunContext, prepared: Prepared, checkpoint: PruningCheckpoint | None = None) -> DenseResults:
    """The dense model's window losses and answers, measured or remembered; losses are written at once.

    Args:
        context: the run.
        prepared: its inputs.
        checkpoint: has what an earlier attempt measured, and keeps what is measured now; None: nothing is pruned.
    """
    cache = dense_cache(context.config, context.inputs, prepared.model, context.device)
    windows = {source: fingerprint(own.ids) for source, own in prepared.evaluation.items()}
    key = [windows, context.config.evaluation.batch_size]
    states: States | None = {} if context.config.measures_fidelity else None
    with phase(context.seconds, "evaluate"):
        losses = context.bench.dense_losses(
            cache,
            key,
            lambda: remembered(checkpoint, LOSSES, key) or dense_losses(context, prepared, states),
        )
        if states is not None:
            states = _states(context, prepared, key, states)
    keep(checkpoint, LOSSES, key, losses)
    write_windows(context.folder, prepared.evaluation, losses)  # they stay even if a later step fails
    quantized = measure_quantized(context, prepared, losses, states, "dense")
    zero_shot = prepared.zero_shot
    if zero_shot is None:
        return DenseResults(losses, None, states, quantized)
    protocol = {  # the requests' hash tells of the limit
        key: value for key, value in vars(zero_shot.plan.protocol).items() if key not in ("limit", "truncated_requests")
    }
    with phase(context.seconds, "zero_shot"):
        answers = context.bench.dense_answers(
            cache,
            [protocol],
            lambda: remembered(checkpoint, ANSWERS, [protocol]) or zero_shot.measure(prepared.model, "dense"),
        )
    keep(checkpoint, ANSWERS, [protocol], answers)
    return DenseResults(losses, answers, states, quantized)


def _states(context: RunContext, prepared: Prepared, key: Sequence[object], measured: States) -> States:
    """The dense model's last hidden states: just measured, or held by the workbench, or made now."""
    held = context.bench.dense_states(key)
    if not measured and held is not None:
        return held
    states = measured or dense_states(context, prepared)
    if prepared.memory.kept is not Placement.disk:  # its files are in this run's folder, which is the user's to remove
        context.bench.keep_dense_states(key, states, prepared.memory.kept_bytes)
    return dict(states)


def measure_losses(
    context: RunContext, prepared: Prepared, dense: DenseResults, model_folder: Path | None
) -> Unfinished:
    """The pruned model's window losses, and the record without answers.

    Args:
        context: the run.
        prepared: its inputs; the model is pruned now.
        dense: what was measured of the dense model.
        model_folder: where this process has written the pruned model; None: nowhere.
    """
    pruned, quantized = WindowResults(dense.losses, None), None
    if prepared.calibration is not None:
        keeps_states = dense.quantized is not None
        pruned = window_results(context, prepared, dense.losses, dense.states, keeps_states=keeps_states)
        quantized = measure_quantized(context, prepared, dense.losses, dense.states, "pruned")
    losses, fidelity = pruned.losses, pruned.fidelity
    both = {"dense_quantized": dense.quantized, "pruned_quantized": quantized}
    others = {name: own.windows for name, own in both.items() if own is not None}
    write_windows(context.folder, prepared.evaluation, dense.losses, pruned, others)
    for source, values in losses.items():
        if not values.isfinite().all():
            log.warning("the pruned perplexity on %s is not finite: weights or activations overflow", source)
        elif fidelity and source in fidelity and not fidelity[source].divergence.isfinite().all():
            log.warning("the divergence on %s is not finite: logits overflow", source)
    record = replace(
        _record(context, prepared, dense.losses, losses),
        fidelity=fidelity_results(fidelity) if fidelity is not None else None,
        quantization=quantization_result(prepared, context.config.quantize.scheme, dense.quantized, quantized),
    )
    return Unfinished(record, prepared.model, prepared.zero_shot, dense.answers, model_folder, prepared.memory)


def measure_answers(context: RunContext, run: Unfinished) -> Unfinished:
    """The pruned model's answers to the zero-shot tasks.

    The record is written without them first, so that a failure costs no pruning.
    """
    zero_shot, dense = run.zero_shot, run.dense_answers
    if zero_shot is None or dense is None:
        return run
    pruned, record = dense, run.record
    if record.is_pruned:
        if record.pending is None:
            pending = Pending("zero_shot", run.model_folder.name if run.model_folder is not None else None)
            record = replace(record, zero_shot=zero_shot.compared(dense, None), pending=pending)
            if rank() == 0:
                context.complete_reports()
                write_documents(context.folder, dense, None)
                write_record(context.folder, record)
        pruned = _pruned_answers(context, run, zero_shot)
    if rank() == 0:
        write_documents(context.folder, dense, pruned)
    record = replace(record, zero_shot=zero_shot.compared(dense, pruned), pending=None)
    if run.memory is not None:
        record = replace(record, memory=memory_result(run.memory, context.device))
    return replace(run, record=record)


def now() -> str:
    """The time in UTC (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def memory_result(plan: MemoryPlan, device: torch.device) -> MemoryResult:
    """Bytes at the peak of the largest process, before and after the plan was made, and the prediction for after."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return MemoryResult(
        peak_host_bytes=max(gathered(peak_host())),
        predicted_host_bytes=plan.predicted.host,
        load_peak_host_bytes=max(gathered(plan.load_peak)),
        peak_device_bytes=max(gathered(on_device)),
        predicted_device_bytes=plan.predicted.device,
        activations=plan.placement.value if plan.waits else "none",
        dense_states=plan.kept.value if plan.kept_bytes else None,
    )


def _pruned_answers(context: RunContext, run: Unfinished, zero_shot: "ZeroShot") -> Answers:
    try:
        with phase(context.seconds, "zero_shot"):
            return zero_shot.measure(run.model, "pruned")
    except BaseException:
        if rank() == 0 and run.model_folder is not None:
            log.warning(
                "the pruned model is kept in %s: the same command evaluates it without pruning again", run.model_folder
            )
        raise


def _record(context: RunContext, prepared: Prepared, dense: dict[str, Tensor], pruned: dict[str, Tensor]) -> RunRecord:
    reports = context.reports
    return RunRecord(
        config=context.config.resolved(),
        config_hash=context.config.hash(),
        date=now(),
        environment=describe_environment(context.device),
        perplexity=perplexity_results(prepared.evaluation, dense, pruned),
        sparsity=sparsity_result(context.config, prepared.blocks, reports),
        coverage=replace(
            prepared.coverage,
            experts_with_pooled_statistics=experts_with_pooled_statistics(reports),
            experts_without_tokens=experts_without_tokens(reports),
        ),
        correction=correction_result(reports),
        calibration=prepared.calibration.origin if prepared.calibration is not None else None,
        seconds=context.seconds,
        reused=context.bench.reused,
        opened=prepared.loaded.opened,
        memory=memory_result(prepared.memory, context.device),
        resumed_blocks=context.resumed_blocks,
        saved=context.saved,
        paths=absolute_paths(context.config, context.folder),
        inputs=context.inputs,
    )
