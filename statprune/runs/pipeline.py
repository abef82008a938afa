"""One run: model → calibration tokens → prune → save → evaluate → record."""

import json
import logging
import math
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from statprune.config.schema import Offload, Propagation, RunConfig
from statprune.core.methods import get_method
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.data.windows import Windows, calibration_windows, evaluation_windows
from statprune.errors import ModelError, first_line
from statprune.evaluate.perplexity import window_losses, window_losses_by_block
from statprune.model.loading import Block, check_tokens, coverage, save_masks, save_model, streamer_of
from statprune.pruning.allocation import check_pattern
from statprune.pruning.budget import (
    Prediction,
    available_host,
    need,
    peak_host,
    place_for,
    predict,
    resident,
    restart_peaks,
)
from statprune.pruning.loop import automatic_batch_size, prune, sampled_rows, statistics_needed
from statprune.runs.record import (
    achieved,
    block_means,
    correction,
    perplexities,
    summary,
    without_own_statistics,
    write_windows,
)
from statprune.runs.resume import (
    add_accuracies,
    dense_answers,
    discard_unsaved,
    find_tasks,
    kept_in,
    load,
    rehearsed,
    resume,
)
from statprune.runs.store import BLOCKS, MODEL, SCHEMA_VERSION, environment, finish_record, read_layers
from statprune.runs.tracking import Tracker
from statprune.runs.workbench import Workbench, cache_of, fingerprint, identity
from statprune.system.console import progress
from statprune.system.distributed import gathered, local_rank, local_size, rank, share, size, start
from statprune.system.files import remove_leftovers, write_json
from statprune.system.timing import phase
from statprune.walk.activations import Keep, Place, keeper
from statprune.walk.discover import find_blocks

log = logging.getLogger(__name__)
MASKS = "masks.npz"


def run(config: RunConfig, folder: Path, bench: Workbench | None = None) -> dict[str, Any]:
    """Carry out one run and write its files into ``folder``; returns the record.

    Args:
        config: what to do.
        folder: of the run.
        bench: what runs of this process share.

    Raises:
        StatpruneError: the model or the data can't be used as asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    bench = bench or Workbench(keeps=False)
    bench.begin()
    tracker = Tracker(config, folder, active=rank() == 0)
    layers: list[dict[str, Any]] = []
    try:
        with ExitStack() as cleanup:
            record = _run(config, folder, tracker, cleanup, bench, layers)
    except BaseException:
        bench.after_a_failure()
        tracker.finish({}, layers, {}, failed=True)
        raise
    tracker.finish(summary(record), layers, {"masks": folder / MASKS, "model": folder / MODEL})
    return record


@dataclass
class _Work:
    """What the steps of one run share, once everything that can be wrong with its input was found."""

    config: RunConfig
    folder: Path
    bench: Workbench
    device: torch.device
    seconds: dict[str, float]
    model: Any
    tokenizer: Any
    blocks: list[Block]
    covered: dict[str, Any]
    calibration: Windows | None
    evaluation: dict[str, Windows]
    zero_shot: Any
    load_peak: int
    place: Place
    prediction: Prediction

    @property
    def keep(self) -> Keep:
        """Where hidden states wait."""
        return keeper(self.place, self.folder)


def complete(config: RunConfig, folder: Path, record: dict[str, Any] | None) -> dict[str, Any]:
    """Carry out what a pending run lacks: the zero-shot evaluation of its pruned model; returns the record.

    Args:
        config: the run's.
        folder: of the run.
        record: the pending one; None in other processes than the first.

    Raises:
        StatpruneError: the tasks can't be run.
    """
    device = choose_device(config.settings.device)
    start(device)
    remove_leftovers(folder)
    tracker = Tracker(config, folder, active=rank() == 0)
    try:
        record = resume(config, folder, record, device)
    except BaseException:
        tracker.finish({}, [], {}, failed=True)
        raise
    tracker.finish(summary(record), read_layers(folder), {"masks": folder / MASKS, "model": folder / MODEL})
    return record


def _run(
    config: RunConfig,
    folder: Path,
    tracker: Tracker,
    cleanup: ExitStack,
    bench: Workbench,
    layers: list[dict[str, Any]],
) -> dict[str, Any]:
    work = _prepared(config, folder, cleanup, bench)
    dense, answers = _measured_dense(work)
    write_windows(folder, work.evaluation, dense, {})  # kept even if a later step fails
    pruned, unsaved = dense, None
    if work.calibration is not None:
        statistics = _dense_statistics(config, work.blocks, bench)
        bench.about_to_prune(work.blocks)
        pruning = _prune(work, work.calibration, tracker, layers, statistics)
        for name, value in pruning.items():
            work.seconds[name] = work.seconds.get(name, 0) + value
        if "masks" in config.tracking.artifacts and rank() == 0:
            save_masks(work.blocks, folder / MASKS)
    if _keeps(config):
        with phase(work.seconds, "save"):  # before the evaluation, which could fail
            unsaved = _save(work.model, work.tokenizer, kept_in(config, folder), config.settings.offload)
            if unsaved is not None and not _saves(config):
                log.warning("%s", unsaved)
    if work.calibration is not None:
        with phase(work.seconds, "evaluate"):
            pruned = _evaluate(work, "pruned")

    write_windows(folder, work.evaluation, dense, pruned)
    for source, losses in pruned.items():
        if not losses.isfinite().all():
            log.warning("the pruned perplexity on %s is not finite: weights or activations overflow", source)
    record = _record(work, layers, dense, pruned)
    if work.zero_shot is not None:
        _measure_accuracy(work, record, answers, is_kept=unsaved is None)
    is_saved = _saves(config) and unsaved is None
    finish_record(folder, record, is_saved)
    if unsaved is not None and _saves(config):
        raise unsaved
    return record


def _prepared(config: RunConfig, folder: Path, cleanup: ExitStack, bench: Workbench) -> _Work:
    """Everything that can be wrong with tasks, model and data is found here, before the first expensive step."""
    seconds: dict[str, float] = {}
    device = choose_device(config.settings.device)
    start(device)
    restart_peaks(device)  # a sweep's earlier runs had theirs
    cleanup.callback(discard_unsaved, folder)
    suite = find_tasks(config, seconds)
    opened = [*(getattr(config.model, key) for key in ("path", "dtype", "revision", "trust_remote_code"))]
    with phase(seconds, "load"):
        model, tokenizer = bench.model(
            [*opened, identity(config.model.path), str(device), config.settings.offload],
            lambda: _load(config, device, kept_in(config, folder)),
        )
    if (streamer := streamer_of(model)) is not None:
        cleanup.callback(streamer.close)
    _check_lengths(config, model)
    evaluation = _evaluation_windows(config, tokenizer, bench)
    calibration = None
    if config.method != "dense":
        with phase(seconds, "calibrate"):
            calibration = _calibration_windows(config, tokenizer, bench)
    with phase(seconds, "find"):
        blocks = _find_blocks(config, model, calibration, evaluation, bench)
    covered = coverage(blocks, pruned=calibration is not None)
    zero_shot = rehearsed(config, suite, model, tokenizer, seconds)
    load_peak = peak_host()
    place, prediction = _plan_memory(config, model, blocks, calibration, evaluation, zero_shot, folder)
    return _Work(
        config,
        folder,
        bench,
        device,
        seconds,
        model,
        tokenizer,
        blocks,
        covered,
        calibration,
        evaluation,
        zero_shot,
        load_peak,
        place,
        prediction,
    )


def _measured_dense(work: _Work) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The dense model's window losses, and its answers to the zero-shot tasks."""
    cache, key = _dense_key(work)
    with phase(work.seconds, "evaluate"):
        dense = work.bench.dense_losses(key, cache, lambda: _evaluate(work, "dense"))
    if work.zero_shot is None:
        return dense, {}
    with phase(work.seconds, "zero_shot"):
        return dense, dense_answers(work.config, work.zero_shot, work.model, work.device, work.bench)


def _record(
    work: _Work, layers: list[dict[str, Any]], dense: dict[str, torch.Tensor], pruned: dict[str, torch.Tensor]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "config": work.config.resolved(),
        "config_hash": work.config.hash(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(work.device) | {"processes": size()},
        "metrics": {"perplexity": perplexities(work.evaluation, dense, pruned)},
        "sparsity": achieved(work.config, work.blocks, layers),
        "coverage": work.covered | without_own_statistics(layers),
        **correction(layers),
        "calibration": work.calibration.info if work.calibration else None,
        "seconds": work.seconds,
        "reused": work.bench.reused,
        "memory": _memory(work.prediction, work.place, work.load_peak, work.device),
    }


def _measure_accuracy(work: _Work, record: dict[str, Any], dense: dict[str, Any], is_kept: bool) -> None:
    """Add the zero-shot accuracies to the record, which is written without them first: a failure leaves it."""
    if work.calibration is None:
        add_accuracies(record, work.zero_shot, work.folder, dense, dense)
        return
    kept = kept_in(work.config, work.folder) if is_kept else None
    add_accuracies(record, work.zero_shot, work.folder, dense, None, kept)
    if rank() == 0:
        write_json(work.folder / "result.json", record)
    try:
        with phase(work.seconds, "zero_shot"):
            pruned = work.zero_shot.measure(work.model, "pruned")
    except BaseException:
        if rank() == 0 and kept is not None:
            log.warning("the pruned model is kept in %s: the same command evaluates it without pruning again", kept)
        raise
    add_accuracies(record, work.zero_shot, work.folder, dense, pruned)
    record["memory"] = _memory(work.prediction, work.place, work.load_peak, work.device)


def _saves(config: RunConfig) -> bool:
    return config.settings.save_model and rank() == 0


def _keeps(config: RunConfig) -> bool:
    """Whether this process writes the model: it was asked to, or a zero-shot evaluation that fails goes on from it."""
    return _saves(config) or (rank() == 0 and bool(config.evaluation.tasks) and config.method != "dense")


def _load(config: RunConfig, device: torch.device, folder: Path) -> tuple[Any, Any]:
    log.info("loading %s", config.model.path)
    return load(config, config.model.path, device, folder)


def _save(model: Any, tokenizer: Any, folder: Path, offload: Offload) -> ModelError | None:
    """Save; what went wrong is returned, so that the pruned model in memory is still measured and recorded."""
    try:
        save_model(model, tokenizer, folder)
    except Exception as error:  # a full disk, a model class whose saving is broken
        (folder / "config.json").unlink(missing_ok=True)  # without it nobody takes the folder for a model
        if offload is not Offload.disk:  # whose blocks are there, and are still to be evaluated
            shutil.rmtree(folder, ignore_errors=True)  # what is left needs the room that was too little
        reason = first_line(error)
        return ModelError(
            f"the pruned model could not be saved to {folder} ({type(error).__name__}: {reason}); "
            "its measurements are in result.json, run again with room on the disk to save it"
        )
    return None


def choose_device(name: str) -> torch.device:
    """The device that a name means to this process."""
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if device.type == "cuda" and size() > 1:
        if device.index is not None:
            raise ModelError(
                f"device={name} is one device, but {size()} processes each need their own; give device=cuda"
            )
        if local_size() > torch.cuda.device_count():  # of the machine, so that each of its processes finds the same
            raise ModelError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs; start fewer"
            )
        device = torch.device("cuda", local_rank())
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def _check_lengths(config: RunConfig, model: Any) -> None:
    options = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    limit = next((value for name in names if isinstance(value := getattr(options, name, None), int)), None)
    lengths = {}
    if config.method != "dense":
        lengths["calibration"] = config.calibration.seq_len
    if config.evaluation.datasets:
        lengths["evaluation"] = config.evaluation.seq_len
    for name, length in lengths.items():
        if limit is not None and length > limit:
            raise ModelError(f"{name}.seq_len={length} is longer than the model's {limit} positions; lower it")


def _find_blocks(
    config: RunConfig, model: Any, calibration: Windows | None, evaluation: dict[str, Windows], bench: Workbench
) -> list[Block]:
    """The blocks, and whether the pattern and its allocation fit them."""
    windows = [part.ids for part in (calibration, *evaluation.values()) if part is not None]
    for ids in windows:
        check_tokens(model, ids)
    exclude = config.model.exclude if calibration is not None else []
    tokens = windows[0] if windows else torch.arange(64)[None] % model.get_input_embeddings().weight.shape[0]
    blocks = bench.blocks(
        [exclude, config.model.prune_routers, fingerprint(tokens)],
        lambda: find_blocks(model, tokens, exclude, config.model.prune_routers),
    )
    if calibration is not None:
        check_pattern(blocks, config.pattern, config.allocation)
    return blocks


def _dense_key(work: _Work) -> tuple[Path | None, Any]:
    """Where the dense model's losses are kept, and what they depend on."""
    windows = {source: fingerprint(part.ids) for source, part in work.evaluation.items()}
    place, model = cache_of(work.config, work.model, work.device)
    return place, [*model, windows, work.config.evaluation.batch_size]


def _dense_statistics(config: RunConfig, blocks: list[Block], bench: Workbench) -> DenseStatistics | None:
    if config.settings.propagation is not Propagation.dense:
        return None
    key = [asdict(config.calibration), config.settings.seed, config.model.exclude, config.model.prune_routers]
    rows = sampled_rows(config.compensation)
    return bench.statistics([*key, rows], statistics_needed(get_method(config.method), config.compensation), blocks)


def _calibration_windows(config: RunConfig, tokenizer: Any, bench: Workbench) -> Windows:
    options = config.calibration
    key = (options.source, options.samples, options.seq_len, config.settings.seed, options.path)
    return bench.windows(
        ["calibration", *key, identity(options.path or "")], lambda: calibration_windows(tokenizer, *key)
    )


def _evaluation_windows(config: RunConfig, tokenizer: Any, bench: Workbench) -> dict[str, Windows]:
    options, found = config.evaluation, {}
    for source in options.datasets:
        key = (source, options.seq_len, options.max_windows, options.path_of(source))
        found[source] = bench.windows(
            ["evaluation", *key, identity(options.path_of(source) or "")],
            partial(evaluation_windows, tokenizer, *key),
        )
    return found


def _evaluate(work: _Work, name: str) -> dict[str, torch.Tensor]:
    losses, batch_size, model = {}, work.config.evaluation.batch_size, work.model
    for source, windows in work.evaluation.items():
        ids = windows.ids[share(len(windows.ids))]
        own = torch.empty(0, dtype=torch.float64)
        with progress(f"{name} perplexity on {source}", len(ids)) as advance:
            if len(ids) and streamer_of(model) is None:
                own = window_losses(model, ids, batch_size, advance)
            elif len(ids):
                own = window_losses_by_block(model, work.blocks, ids, batch_size, work.keep, advance)
        losses[source] = torch.cat(gathered(own))
    return losses


def _plan_memory(
    config: RunConfig,
    model: Any,
    blocks: list[Block],
    calibration: Windows | None,
    evaluation: dict[str, Windows],
    zero_shot: Any,
    folder: Path,
) -> tuple[Place, Prediction]:
    """Where calibration windows wait, and the peaks to come; from here on peaks are measured."""
    needed = need(
        model,
        blocks,
        (config.calibration.samples, config.calibration.seq_len) if calibration else None,
        config.calibration.batch_size or automatic_batch_size(config.calibration.seq_len, model.device),
        (config.evaluation.batch_size, config.evaluation.seq_len) if evaluation else (0, 0),
        max((len(windows.ids) for windows in evaluation.values()), default=0),
        (config.evaluation.task_batch_size, zero_shot.plan.longest) if zero_shot is not None else (0, 0),
        statistics_needed(get_method(config.method), config.compensation) if calibration else StatisticsKind.NONE,
        sampled_rows(config.compensation),
        config.settings.propagation is Propagation.sequential,
    )
    place = place_for(config.settings.activations, needed, model.device)
    files = needed.activations if place is Place.disk else 0
    streamer = streamer_of(model)
    if streamer is not None and config.settings.offload is Offload.disk:
        files += sum(streamer.block_bytes)
    files *= size()
    room = shutil.disk_usage(folder).free
    if files > room:
        raise ModelError(
            f"pruning will write {files / 2**30:.2f} GiB below {folder}, where {room / 2**30:.2f} GiB are free; "
            "make room, or give a hydra.run.dir elsewhere"
        )
    restart_peaks(model.device)
    prediction = predict(needed, place, model.device)
    where = "" if model.device.type == "cpu" else f", {prediction.device / 2**30:.2f} GiB on {model.device}"
    log.info("predicted peak memory %.2f GiB on the host%s", prediction.host / 2**30, where)
    available = available_host()
    if available is not None and prediction.host - resident() > available:
        log.warning("only %.2f GiB more are available on the host; lower the batch sizes", available / 2**30)
    return place, prediction


def _memory(prediction: Prediction, place: Place, load_peak: int, device: torch.device) -> dict[str, Any]:
    """Bytes at the peak of the largest process, before and after the plan was made, and the prediction for after."""
    return {
        "peak_host_bytes": max(gathered(peak_host())),
        "predicted_host_bytes": prediction.host,
        "load_peak_host_bytes": max(gathered(load_peak)),
        "peak_device_bytes": max(gathered(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0)),
        "predicted_device_bytes": prediction.device,
        "activations": place.value,
    }


def _prune(
    work: _Work,
    calibration: Windows,
    tracker: Tracker,
    reports: list[dict[str, Any]],
    statistics: DenseStatistics | None,
) -> dict[str, float]:
    """Prune, write each layer's report as it comes, and add it to ``reports``; returns seconds by phase."""
    config, blocks = work.config, work.blocks
    with (
        (work.folder / BLOCKS).open("w", encoding="utf-8") as file,
        progress("pruning blocks", len(blocks)) as advance,
    ):

        def on_block(index: int, count: int, layers: list[dict[str, Any]]) -> None:
            file.writelines(json.dumps(layer) + "\n" for layer in layers)
            file.flush()
            reports.extend(layers)
            means = block_means(layers)
            tracker.log_block(index, means)
            error = means.get("relative_output_error", math.nan)
            log.debug("block %d of %d: mean relative output error %.4f", index + 1, count, error)
            advance(index + 1)

        options = config.method_options
        return prune(
            work.model,
            calibration.ids,
            get_method(config.method, **{key: getattr(options, key) for key in options.__dataclass_fields__}),
            config.pattern,
            config.compensation,
            config.settings.propagation.value,
            config.calibration.batch_size,
            config.settings.seed,
            on_block,
            blocks=blocks,
            allocation=config.allocation,
            min_expert_tokens=config.calibration.min_expert_tokens,
            keep=work.keep,
            statistics=statistics,
        )
