"""The first stage: everything that can be wrong with tasks, model and data is found before any expensive step."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from statprune.config.schema import RunConfig
from statprune.config.sections import Offload
from statprune.core.statistics import StatisticsKind
from statprune.data.windows import Windows, calibration_windows, evaluation_windows
from statprune.errors import ModelError
from statprune.evaluation.tasks import TaskSuite, load_tasks
from statprune.model.coverage import Coverage, measure_coverage
from statprune.model.lengths import check_unnamed_limit, probe_window
from statprune.model.loading import LoadedModel, check_length, check_tokens, open_model
from statprune.model.matrix import Block
from statprune.model.quantization import check_quantizable, quantizing_bytes
from statprune.model.room import shard_bytes
from statprune.pruning.allocation import check_pattern
from statprune.pruning.budget import (
    PredictedPeak,
    TokenBatch,
    Workload,
    choose_kept_placement,
    choose_placement,
    memory_need,
    predict_peak,
)
from statprune.pruning.calibration import automatic_batch_size
from statprune.pruning.spec import Propagation
from statprune.runs.checked_tokenizer import check_tokenizer_alone
from statprune.runs.context import RunContext
from statprune.runs.dense_cache import fingerprint
from statprune.runs.inputs import MODEL, add_hub_model, input_key
from statprune.system.console import waiting
from statprune.system.disk import readable
from statprune.system.distributed import size
from statprune.system.memory import available_host, peak_host, resident, restart_peaks
from statprune.system.timing import phase
from statprune.walk.activations import Placement
from statprune.walk.discover import find_blocks

if TYPE_CHECKING:  # lm-eval takes seconds to import, and most runs need none of it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from statprune.evaluation.zero_shot import ZeroShot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryPlan:
    """Where hidden states wait, and how much memory that takes.

    Attributes:
        placement: of the windows' hidden states between two blocks.
        predicted: peaks from the plan on.
        load_peak: bytes of the host at the peak of loading.
        waits: whether hidden states wait at all.
        written: bytes of hidden states that wait on disk, of all processes.
        kept: where the dense model's last hidden states wait until the pruned model is measured.
        kept_bytes: how much they take; 0 where no fidelity is measured.
    """

    placement: Placement
    predicted: PredictedPeak
    load_peak: int
    waits: bool
    written: int = 0
    kept: Placement = Placement.device
    kept_bytes: int = 0


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are ready.

    Attributes:
        loaded: the dense model.
        blocks: its decoder blocks.
        coverage: of its matrices.
        calibration: windows; None where nothing is pruned.
        evaluation: windows by dataset.
        zero_shot: the tasks, rehearsed; None where there are none.
        memory: the plan.
    """

    loaded: LoadedModel
    blocks: list[Block]
    coverage: Coverage
    calibration: Windows | None
    evaluation: dict[str, Windows]
    zero_shot: "ZeroShot | None"
    memory: MemoryPlan

    @property
    def model(self) -> "PreTrainedModel":
        """The transformers model."""
        return self.loaded.model


def prepare(context: RunContext) -> Prepared:
    """Open the model, read the windows, find the blocks, rehearse the tasks and plan the memory.

    Raises:
        StatpruneError: the model, the data or the tasks can't be used as asked.
    """
    config = context.config
    restart_peaks(context.device)  # a sweep's earlier runs had theirs
    suite = find_tasks(context)
    check_tokenizer_alone(context, suite)
    loaded = _opened(context)
    context.cleanup.callback(loaded.close)
    add_hub_model(context.inputs, loaded.model)
    _check_lengths(config, loaded.model)
    evaluation = _evaluation_windows(context, loaded.tokenizer)
    calibration = None
    if not config.is_dense:
        with phase(context.seconds, "calibrate"):
            calibration = _calibration_windows(context, loaded.tokenizer)
        if warning := overlap_warning(calibration):
            log.warning("%s", warning)
    with phase(context.seconds, "find"):
        blocks = _find_blocks(context, loaded, calibration, evaluation)
    coverage = measure_coverage(blocks, is_pruned=calibration is not None)
    zero_shot = rehearsed(context, suite, loaded)
    load_peak = peak_host()
    workload = replace(
        _workload(config, loaded.model, evaluation, zero_shot), quantized=_quantizing(config, loaded, blocks)
    )
    memory = _plan_memory(context, loaded, blocks, workload, load_peak)
    return Prepared(loaded, blocks, coverage, calibration, evaluation, zero_shot, memory)


def find_tasks(context: RunContext) -> TaskSuite | None:
    """The evaluation's tasks, their documents read; None where it has none.

    Raises:
        ConfigError: with everything that is wrong with them.
    """
    if not context.config.evaluation.tasks:
        return None
    with phase(context.seconds, "tasks"):
        return load_tasks(context.config.evaluation.tasks, context.config.evaluation.trust_task_code)


def rehearsed(context: RunContext, suite: TaskSuite | None, loaded: LoadedModel) -> "ZeroShot | None":
    """The tasks, ready to be asked; None where there are none.

    Raises:
        StatpruneError: the tasks can't be run with this model.
    """
    if suite is None:
        return None
    from statprune.evaluation.zero_shot import ZeroShot

    options = context.config.evaluation.task_options
    with phase(context.seconds, "tasks"):
        zero_shot = ZeroShot(suite, loaded.model, loaded.tokenizer, options)
        longest = zero_shot.plan.longest
        check_unnamed_limit(loaded.model, longest, f"the longest prompt, of {longest} tokens,")
    return zero_shot


def _opened(context: RunContext) -> LoadedModel:
    source, offload = context.config.model.source, context.config.settings.offload.value
    device = str(context.device)

    def load() -> LoadedModel:
        log.info("loading %s", source.path)
        with waiting(f"loading {source.path}"):
            return open_model(source, device, offload, context.model_folder, context.config.settings.converted_models)

    with phase(context.seconds, "load"):
        key = [*vars(source).values(), input_key(context.inputs, MODEL), device, offload]
        loaded = context.bench.model(key, load)
    tell_of(loaded)
    return loaded


def tell_of(loaded: LoadedModel) -> None:
    """Log what the model's class leaves out of the checkpoint, and what transformers warned of."""
    opened, name = loaded.opened, type(loaded.model).__name__
    if opened.ignored_tensors:
        few = ", ".join(opened.ignored[:3])
        log.warning("%s leaves out %d tensors of its checkpoint, such as %s", name, opened.ignored_tensors, few)
    for warning in opened.warnings:
        log.warning("transformers warns of this model: %s", warning)


def _check_lengths(config: RunConfig, model: "PreTrainedModel") -> None:
    """Raise ModelError where windows are longer than the model's positions, or than what it can read."""
    lengths = {}
    if not config.is_dense:
        lengths["calibration"] = config.calibration.seq_len
    if config.evaluation.datasets:
        lengths["evaluation"] = config.evaluation.seq_len
    for name, length in lengths.items():
        check_length(model, length, f"{name}.seq_len={length}")
    if lengths:
        longest = max(lengths, key=lengths.__getitem__)
        check_unnamed_limit(model, lengths[longest], f"{longest}.seq_len={lengths[longest]}")


def _calibration_windows(context: RunContext, tokenizer: "PreTrainedTokenizerBase") -> Windows:
    options, seed = context.config.calibration, context.config.settings.seed
    arguments = (options.source, options.samples, options.seq_len, seed, options.path, options.field, options.bos)
    key = [*arguments, input_key(context.inputs, "calibration.path")]
    return context.bench.windows("calibration", key, lambda: calibration_windows(tokenizer, *arguments))


def overlap_warning(calibration: Windows) -> str | None:
    """A sentence where the windows hold more tokens than the text they are drawn from; None where they don't."""
    samples, length = calibration.ids.shape
    tokens = calibration.origin.text_tokens
    if tokens is None or samples * length <= tokens:
        return None
    return (
        f"calibration.samples={samples} windows of calibration.seq_len={length} are {samples * length:,} tokens from a "
        f"text of {tokens:,}: they overlap, and tell less than their number says; give a longer text, or lower either"
    )


def _evaluation_windows(context: RunContext, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Windows]:
    return {source: _evaluation_windows_of(context, tokenizer, source) for source in context.config.evaluation.datasets}


def _evaluation_windows_of(context: RunContext, tokenizer: "PreTrainedTokenizerBase", source: str) -> Windows:
    options = context.config.evaluation
    where = options.path_of(source), options.field_of(source)
    arguments = (source, options.seq_len, options.max_windows, *where, options.bos)
    key = [*arguments, input_key(context.inputs, "evaluation.path")]
    return context.bench.windows("evaluation", key, lambda: evaluation_windows(tokenizer, *arguments))


def _find_blocks(
    context: RunContext, loaded: LoadedModel, calibration: Windows | None, evaluation: Mapping[str, Windows]
) -> list[Block]:
    """The blocks, after checking that tokens, pattern and allocation fit them."""
    config, model = context.config, loaded.model
    all_ids = [windows.ids for windows in (calibration, *evaluation.values()) if windows is not None]
    for ids in all_ids:
        check_tokens(model, ids)
    exclude = config.model.exclude if calibration is not None else []
    tokens = all_ids[0] if all_ids else probe_window(model)
    blocks = context.bench.blocks(
        [exclude, config.model.prune_routers, fingerprint(tokens)],
        lambda: find_blocks(loaded, tokens, exclude, config.model.prune_routers),
    )
    if calibration is not None:
        check_pattern(blocks, config.pattern.value, config.spread)
    return blocks


def _workload(
    config: RunConfig, model: "PreTrainedModel", evaluation: Mapping[str, Windows], zero_shot: "ZeroShot | None"
) -> Workload:
    options, batches = config.calibration, config.evaluation
    spec = None if config.is_dense else config.spec
    kept = sum(-(-len(windows.ids) // size()) for windows in evaluation.values()) if config.measures_fidelity else 0
    return Workload(
        calibration=TokenBatch(options.samples, options.seq_len) if spec is not None else None,
        batch_size=options.batch_size or automatic_batch_size(options.seq_len, model.device),
        evaluation=TokenBatch(batches.batch_size, batches.seq_len) if evaluation else TokenBatch(),
        evaluated_windows=max((len(windows.ids) for windows in evaluation.values()), default=0),
        requests=TokenBatch(batches.task_batch_size, zero_shot.plan.longest) if zero_shot else TokenBatch(),
        kind=spec.statistics_kind if spec is not None else StatisticsKind.NONE,
        sampled_rows=spec.sampled_rows if spec is not None else 0,
        working_copies=spec.working_copies if spec is not None else 0,
        gram_copies=spec.gram_copies if spec is not None else 0,
        is_sequential=config.settings.propagation is Propagation.sequential,
        kept=TokenBatch(kept, batches.seq_len),
    )


def _quantizing(config: RunConfig, loaded: LoadedModel, blocks: Sequence[Block]) -> int:
    """Bytes that quantised matrices will take beside the model's own, after checking that there can be some."""
    scheme = config.quantize.scheme
    if scheme is None:
        return 0
    check_quantizable(loaded.model, blocks, scheme)
    return quantizing_bytes(blocks, scheme)


def _plan_memory(
    context: RunContext, loaded: LoadedModel, blocks: Sequence[Block], workload: Workload, load_peak: int
) -> MemoryPlan:
    """Where hidden states wait, and the peaks to come; from here on peaks are measured."""
    settings, model = context.config.settings, loaded.model
    need = memory_need(model, blocks, workload)
    placement = choose_placement(settings.activations, need, model.device)
    kept = choose_kept_placement(settings.activations, placement, need, model.device)
    streamer = blocks[0].streamer
    waiting_on_disk = (need.activations if placement is Placement.disk else 0) * size()
    waiting_on_disk += (need.kept if kept is Placement.disk else 0) * size()
    is_pruned_there = streamer is not None and settings.offload is Offload.disk and not context.config.is_dense
    written = waiting_on_disk + (sum(streamer.block_bytes) * size() if streamer is not None and is_pruned_there else 0)
    room = context.room
    if written > room:
        raise ModelError(
            f"pruning will write {readable(written)} below {context.folder}, where {readable(room)} are free; make "
            "room, or give a hydra.run.dir elsewhere"
        )
    restart_peaks(model.device)
    copies = context.bench.bytes_to_copy(blocks) if workload.calibration is not None else 0
    saving = shard_bytes(loaded) if context.writes_model else 0
    predicted = predict_peak(need, placement, model.device, kept, copies, saving)
    on_device = "" if model.device.type == "cpu" else f", {predicted.device / 2**30:.2f} GiB on {model.device}"
    log.info("predicted peak memory %.2f GiB on the host%s", predicted.host / 2**30, on_device)
    if need.kept:
        log.info(
            "of it %.2f GiB wait (%s) for fidelity: hidden states of the dense model", need.kept / 2**30, kept.value
        )
    available = available_host()
    if available is not None and predicted.host - resident() > available:
        log.warning("only %.2f GiB more are available on the host; lower the batch sizes", available / 2**30)
    return MemoryPlan(placement, predicted, load_peak, need.activations > 0, waiting_on_disk, kept, need.kept)
