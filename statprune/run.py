"""One run: model → calibration tokens → prune → save → evaluate → record."""

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from statprune.activations import Keep, Place, keeper
from statprune.allocation import check_pattern
from statprune.calibration import Windows, calibration_windows, evaluation_windows
from statprune.card import model_card
from statprune.config import Offload, Propagation, RunConfig
from statprune.console import progress
from statprune.distributed import gathered, local_rank, rank, share, size, start
from statprune.errors import ModelError
from statprune.evaluate.perplexity import window_losses, window_losses_by_block
from statprune.memory import (
    Prediction,
    available_host,
    need,
    peak_host,
    place_for,
    predict,
    resident,
    restart_peaks,
)
from statprune.methods import get_method
from statprune.models import Block, check_tokens, coverage, load_model, save_masks, save_model, streamer_of
from statprune.prune import automatic_batch_size, prune
from statprune.record import achieved, block_means, perplexities, summary, without_own_statistics, write_windows
from statprune.results import SCHEMA_VERSION, environment, write_json
from statprune.sharing import Workbench, fingerprint, identity, software
from statprune.statistics import DenseStatistics, StatisticsKind
from statprune.structure import find_blocks
from statprune.tracking import Tracker

log = logging.getLogger(__name__)
MASKS = "masks.npz"
UNSAVED = ".pruned"  # where offload=disk keeps pruned blocks of a model that is not saved


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
    for left in folder.glob(".result.json.*"):  # by a process that was killed
        left.unlink()
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
    tracker.finish(summary(record), layers, {"masks": folder / MASKS, "model": folder / "model"})
    return record


def _run(
    config: RunConfig,
    folder: Path,
    tracker: Tracker,
    cleanup: ExitStack,
    bench: Workbench,
    layers: list[dict[str, Any]],
) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    saves = config.settings.save_model and rank() == 0
    device = choose_device(config.settings.device)
    start(device)
    cleanup.callback(shutil.rmtree, folder / UNSAVED, ignore_errors=True)
    opened = [*(getattr(config.model, key) for key in ("path", "dtype", "revision", "trust_remote_code"))]
    with _phase(seconds, "load"):
        model, tokenizer = bench.model(
            [*opened, identity(config.model.path), str(device), config.settings.offload],
            lambda: _load(config, device, folder / ("model" if saves else UNSAVED)),
        )
    if (streamer := streamer_of(model)) is not None:
        cleanup.callback(streamer.close)
    _check_lengths(config, model)
    # everything that can be wrong with model and data is found before the first expensive step
    evaluation = _evaluation_windows(config, tokenizer, bench)
    calibration = None
    if config.method != "dense":
        with _phase(seconds, "calibrate"):
            calibration = _calibration_windows(config, tokenizer, bench)
    with _phase(seconds, "find"):
        blocks = _find_blocks(config, model, calibration, evaluation, bench)
    covered = coverage(blocks, pruned=calibration is not None)
    load_peak = peak_host()
    place, prediction = _plan_memory(config, model, blocks, calibration, evaluation, folder)
    keep = keeper(place, folder)

    cache, key = _dense_key(config, model, evaluation, device)
    with _phase(seconds, "evaluate"):
        dense = bench.dense_losses(key, cache, lambda: _evaluate(model, blocks, evaluation, config, "dense", keep))
    write_windows(folder, evaluation, dense, {})  # kept even if a later step fails
    if calibration is not None:
        statistics = _dense_statistics(config, blocks, bench)
        bench.about_to_prune(blocks)
        pruning = _prune(config, model, blocks, calibration, folder, tracker, layers, keep, statistics)
        for phase, value in pruning.items():
            seconds[phase] = seconds.get(phase, 0) + value
        if "masks" in config.tracking.artifacts and rank() == 0:
            save_masks(blocks, folder / MASKS)
    unsaved = None
    if saves:
        with _phase(seconds, "save"):  # before the evaluation, which could fail
            unsaved = _save(model, tokenizer, folder / "model")
    pruned = dense
    if calibration is not None:
        with _phase(seconds, "evaluate"):
            pruned = _evaluate(model, blocks, evaluation, config, "pruned", keep)

    write_windows(folder, evaluation, dense, pruned)
    record = {
        "schema_version": SCHEMA_VERSION,
        "config": config.resolved(),
        "config_hash": config.hash(),
        "environment": environment(device) | {"processes": size()},
        "metrics": {"perplexity": perplexities(evaluation, dense, pruned)},
        "sparsity": achieved(config, blocks, layers),
        "coverage": covered | without_own_statistics(layers),
        "calibration": calibration.info if calibration else None,
        "seconds": seconds,
        "reused": bench.reused,
        "memory": _memory(prediction, place, load_peak, device),
    }
    if saves and unsaved is None:
        (folder / "model" / "README.md").write_text(model_card(record), encoding="utf-8")
    for source, losses in pruned.items():
        if not losses.isfinite().all():
            log.warning("the pruned perplexity on %s is not finite: weights or activations overflow", source)
    write_json(folder / "result.json", record)  # last: what it stands beside is whole
    if unsaved is not None:
        raise unsaved
    return record


def _load(config: RunConfig, device: torch.device, folder: Path) -> tuple[Any, Any]:
    log.info("loading %s", config.model.path)
    return load_model(
        config.model.path,
        config.model.dtype.value,
        config.model.revision,
        config.model.trust_remote_code,
        str(device),
        config.settings.offload.value,
        folder,
    )


def _save(model: Any, tokenizer: Any, folder: Path) -> ModelError | None:
    """Save; what went wrong is returned, so that the pruned model in memory is still measured and recorded."""
    try:
        save_model(model, tokenizer, folder)
    except Exception as error:  # a full disk, a model class whose saving is broken
        reason = (str(error).strip() or "no reason given").splitlines()[0]
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
        if local_rank() >= torch.cuda.device_count():
            raise ModelError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs; start fewer"
            )
        device = torch.device("cuda", local_rank())
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def _check_lengths(config: RunConfig, model: Any) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
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
    tokens = windows[0] if windows else torch.arange(64)[None] % model.get_input_embeddings().weight.shape[0]
    blocks = bench.blocks(
        [config.model.exclude, config.model.prune_routers, fingerprint(tokens)],
        lambda: find_blocks(model, tokens, config.model.exclude, config.model.prune_routers),
    )
    if calibration is not None:
        check_pattern(blocks, config.pattern, config.allocation)
    return blocks


def _dense_key(
    config: RunConfig, model: Any, evaluation: dict[str, Windows], device: torch.device
) -> tuple[Path | None, Any]:
    """Where the dense model's losses are kept, and what they depend on; nowhere where the model can't be told apart."""
    known = identity(config.model.path, model)
    place = Path(config.settings.cache) if config.settings.cache and known and size() == 1 else None
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    windows = {source: fingerprint(part.ids) for source, part in evaluation.items()}
    dtype = str(next(model.parameters()).dtype)
    return place, [Path(config.model.path).name, known, dtype, windows, config.evaluation.batch_size, where, software()]


def _dense_statistics(config: RunConfig, blocks: list[Block], bench: Workbench) -> DenseStatistics | None:
    if config.settings.propagation is not Propagation.dense:
        return None
    key = [asdict(config.calibration), config.settings.seed, config.model.exclude, config.model.prune_routers]
    return bench.statistics(key, get_method(config.method).needs, blocks)


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


def _evaluate(
    model: Any, blocks: list[Block], evaluation: dict[str, Windows], config: RunConfig, name: str, keep: Keep
) -> dict[str, torch.Tensor]:
    losses, batch_size = {}, config.evaluation.batch_size
    for source, windows in evaluation.items():
        ids = windows.ids[share(len(windows.ids))]
        own = torch.empty(0, dtype=torch.float64)
        with progress(f"{name} perplexity on {source}", len(ids)) as advance:
            if len(ids) and streamer_of(model) is None:
                own = window_losses(model, ids, batch_size, advance)
            elif len(ids):
                own = window_losses_by_block(model, blocks, ids, batch_size, keep, advance)
        losses[source] = torch.cat(gathered(own))
    return losses


def _plan_memory(
    config: RunConfig,
    model: Any,
    blocks: list[Block],
    calibration: Windows | None,
    evaluation: dict[str, Windows],
    folder: Path,
) -> tuple[Place, Prediction]:
    """Where calibration windows wait, and the peaks to come; from here on peaks are measured."""
    method = config.method
    needed = need(
        model,
        blocks,
        (config.calibration.samples, config.calibration.seq_len) if calibration else None,
        config.calibration.batch_size or automatic_batch_size(config.calibration.seq_len, model.device),
        (config.evaluation.batch_size, config.evaluation.seq_len) if evaluation else (0, 0),
        max((len(windows.ids) for windows in evaluation.values()), default=0),
        get_method(method).needs if calibration else StatisticsKind.NONE,
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
        "load_peak_host_bytes": load_peak,
        "peak_device_bytes": max(gathered(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0)),
        "predicted_device_bytes": prediction.device,
        "activations": place.value,
    }


def _prune(
    config: RunConfig,
    model: Any,
    blocks: list[Block],
    calibration: Windows,
    folder: Path,
    tracker: Tracker,
    reports: list[dict[str, Any]],
    keep: Keep,
    statistics: DenseStatistics | None,
) -> dict[str, float]:
    """Prune, write each layer's report as it comes, and add it to ``reports``; returns seconds by phase."""
    with (
        (folder / "blocks.jsonl").open("w", encoding="utf-8") as file,
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
            model,
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
            keep=keep,
            statistics=statistics,
        )


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
