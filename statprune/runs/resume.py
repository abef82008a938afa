"""The zero-shot part of a run: prepared, measured dense (or remembered) and pruned, completed after a failure."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from statprune.config.schema import RunConfig
from statprune.errors import first_line
from statprune.evaluate.tasks import TaskSuite, load_tasks
from statprune.model.loading import load_model, streamer_of
from statprune.runs.store import MODEL, finish_record, read_record
from statprune.runs.workbench import Workbench, cache_of
from statprune.system.distributed import gathered, rank
from statprune.system.timing import phase

if TYPE_CHECKING:  # lm-eval takes seconds to import, and most runs need none of it
    from statprune.evaluate.zero_shot import Scores, ZeroShot

log = logging.getLogger(__name__)
UNSAVED = ".pruned"  # where the pruned blocks, or all, of a model are that is not to be saved


def load(config: RunConfig, path: str, device: torch.device, folder: Path) -> tuple[Any, Any]:
    """The run's model, or what it made of it: model and tokenizer, opened as the run's configuration says.

    Args:
        config: the run's.
        path: the run's model, or the pruned one.
        device: to compute on.
        folder: where changed blocks are written if they wait on disk.
    """
    options = config.model
    revision = options.revision if path == options.path else None
    offload = config.settings.offload.value
    return load_model(path, options.dtype.value, revision, options.trust_remote_code, str(device), offload, folder)


def find_tasks(config: RunConfig, seconds: dict[str, float]) -> TaskSuite | None:
    """The evaluation's tasks, their documents read; None where it has none.

    Raises:
        ConfigError: with everything that is wrong with them.
    """
    if not config.evaluation.tasks:
        return None
    with phase(seconds, "tasks"):
        return load_tasks(config.evaluation.tasks)


def rehearsed(
    config: RunConfig, suite: TaskSuite | None, model: Any, tokenizer: Any, seconds: dict[str, float]
) -> "ZeroShot | None":
    """The evaluation, ready to run; None where there are no tasks.

    Raises:
        StatpruneError: the tasks can't be run with this model.
    """
    if suite is None:
        return None
    from statprune.evaluate.zero_shot import ZeroShot

    with phase(seconds, "tasks"):
        return ZeroShot(suite, model, tokenizer, config.evaluation)


def dense_answers(
    config: RunConfig, zero_shot: "ZeroShot", model: Any, device: torch.device, bench: Workbench
) -> "Scores":
    """What the dense model answers, measured or remembered."""
    place, known = cache_of(config, model, device)
    protocol = {key: value for key, value in zero_shot.plan.protocol.items() if key != "limit"}  # the requests tell
    return bench.dense_accuracies([*known, protocol], place, lambda: zero_shot.measure(model, "dense"))


def add_accuracies(
    record: dict[str, Any],
    zero_shot: "ZeroShot",
    folder: Path,
    dense: "Scores",
    pruned: "Scores | None",
    kept: Path | None = None,
) -> None:
    """Write the documents' file, and put the accuracies into the record.

    Without the pruned ones the record is pending: it tells where the pruned model is ``kept``, None if nowhere.
    """
    from statprune.evaluate.zero_shot import write_documents

    if rank() == 0:
        write_documents(folder, dense, pruned)
    record["metrics"]["zero_shot"] = zero_shot.compared(dense, pruned)
    record.pop("pending", None)
    if pruned is None:
        record["pending"] = {"evaluation": "zero_shot", "model": kept.name if kept is not None else None}


def kept_in(config: RunConfig, folder: Path) -> Path:
    """Where a run writes its pruned model, for good or until it is evaluated."""
    return folder / (MODEL if config.settings.save_model and rank() == 0 else UNSAVED)


def can_resume(record: dict[str, Any] | None, folder: Path) -> bool:
    """Whether a run's zero-shot evaluation did not end, and its pruned model is there."""
    name = record["pending"]["model"] if record is not None and "pending" in record else None
    return name is not None and (folder / name / "config.json").exists()


def discard_unsaved(folder: Path) -> None:
    """Remove a pruned model that was not to be saved, unless its evaluation has to go on."""
    if not can_resume(read_record(folder), folder):
        shutil.rmtree(folder / UNSAVED, ignore_errors=True)


def resume(config: RunConfig, folder: Path, record: dict[str, Any] | None, device: torch.device) -> dict[str, Any]:
    """Evaluate the pruned model that a run left in its folder, and complete the run's record.

    Args:
        config: the run's.
        folder: of the run.
        record: a pending one; None in other processes than the first.
        device: to evaluate on.

    Raises:
        StatpruneError: the tasks can't be run.
    """
    record, first_folder = gathered((record, folder.absolute()))[0]  # only the first process's folder is the run's
    if record is None:
        raise ValueError("the first process has no record to complete")
    kept = first_folder / record["pending"]["model"]
    seconds: dict[str, float] = record["seconds"]
    suite = find_tasks(config, seconds)
    log.info("evaluating the pruned model in %s, which is not pruned again", kept)
    with phase(seconds, "load"):
        model, tokenizer = load(config, str(kept), device, folder / UNSAVED)
    zero_shot = rehearsed(config, suite, model, tokenizer, seconds)
    if zero_shot is None:
        raise ValueError("a pending run has tasks")
    dense = _remembered_dense(config, first_folder, record, zero_shot, device)
    with phase(seconds, "zero_shot"):
        pruned = _measured(zero_shot, model, "pruned")
    add_accuracies(record, zero_shot, folder, dense, pruned)
    if rank() == 0:
        if config.settings.save_model and kept.name != MODEL:
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            kept.rename(folder / MODEL)
        record["config"] = config.resolved()  # which may save what the first attempt would not
        finish_record(folder, record, is_saved=(folder / MODEL / "config.json").exists())
        discard_unsaved(folder)
    return record


def _remembered_dense(
    config: RunConfig, folder: Path, record: dict[str, Any], zero_shot: "ZeroShot", device: torch.device
) -> "Scores":
    """The dense model's answers from the run's files; anew where they are not whole or the tasks were changed."""
    from statprune.evaluate.zero_shot import dense_scores

    before = record["metrics"]["zero_shot"]
    if before["protocol"]["requests_sha256"] == zero_shot.plan.protocol["requests_sha256"]:
        known = None
        try:
            known = dense_scores(before, folder) if rank() == 0 else None  # one reads, so that all do the same
        except (OSError, ValueError, KeyError) as error:
            log.info("the dense model's answers can't be read (%s): it is evaluated again", first_line(error))
        if (known := gathered(known)[0]) is not None:
            return known
    else:
        log.info("the tasks were changed: the dense model is evaluated again")
    model, _ = load(config, config.model.path, device, folder / UNSAVED)
    return _measured(zero_shot, model, "dense")


def _measured(zero_shot: "ZeroShot", model: Any, name: str) -> "Scores":
    try:
        return zero_shot.measure(model, name)
    finally:
        if (streamer := streamer_of(model)) is not None:
            streamer.close()
