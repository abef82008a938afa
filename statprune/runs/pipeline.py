"""One run: prepare → measure_dense → prune → save → measure_pruned → record → hand on.

The pruned model is measured in two stages: its losses, then its answers to the tasks, which take longest. A run that
was cut off between them is completed by entering the same pipeline at `measure_answers`.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from statprune.config.schema import RunConfig
from statprune.config.sections import Offload
from statprune.core.statistics import DenseStatistics
from statprune.errors import Interrupted, ModelError, StatpruneError, first_line
from statprune.model.room import saved_bytes
from statprune.model.saving import TokenizerError, save_masks, save_model
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import Propagation, PruneRuntime
from statprune.runs import own_model
from statprune.runs.checkpoint_opening import opened_checkpoint, remove_checkpoint
from statprune.runs.context import RunContext, started
from statprune.runs.earlier_run import EarlierRun
from statprune.runs.environment import describe_environment
from statprune.runs.finals import block_means
from statprune.runs.inputs import TASKS, read_inputs
from statprune.runs.kept_model import kept_model
from statprune.runs.measure import Unfinished, measure_answers, measure_dense, measure_losses, now
from statprune.runs.paths import absolute_paths
from statprune.runs.prepare import Prepared, prepare
from statprune.runs.pruning_checkpoint import PruningCheckpoint
from statprune.runs.pushing import handed_on
from statprune.runs.record import RunRecord
from statprune.runs.rehearsal import check_saving
from statprune.runs.resume import reopened
from statprune.runs.store import MASKS, MODEL, clear_reports, finish_record
from statprune.runs.workbench import Workbench
from statprune.system import stop_request
from statprune.system.console import progress
from statprune.system.disk import disk_problem, is_disk_error
from statprune.system.distributed import rank
from statprune.system.timing import phase

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    folder: Path,
    bench: Workbench | None = None,
    pending: RunRecord | None = None,
    earlier: EarlierRun | None = None,
) -> RunRecord:
    """Carry out one run and write its files into ``folder``.

    Args:
        config: what to do.
        folder: of the run.
        bench: what runs of this process share; None: nothing.
        pending: the record of this very run where it only lacks its zero-shot evaluation.
        earlier: run of this folder, which this one replaces once it can start.

    Raises:
        StatpruneError: the model, the data or the tasks can't be used as asked.
    """
    with started(config, folder, bench) as context:
        context.inputs = read_inputs(config)
        if pending is None:
            context.replaced = earlier.model_bytes if earlier is not None else 0
            prepared = prepare(context)
            check_saving(context, prepared)
            if earlier is not None:
                _replace(context, earlier)
            checkpoint = opened_checkpoint(context, prepared)
            dense = measure_dense(context, prepared, checkpoint)
            context.stop_if_asked()
            prune_blocks(context, prepared, checkpoint)
            saved = save(context, prepared, checkpoint)
            context.stop_if_asked()
            unfinished = measure_losses(context, prepared, dense, saved)
        else:
            unfinished = reopened(context, pending)
        unfinished = measure_answers(context, unfinished)
        context.record = record(context, unfinished)
        remove_checkpoint(context.folder)
        context.record = handed_on(context, context.record)
    return context.record


def _replace(context: RunContext, earlier: EarlierRun) -> None:
    """Remove an earlier run of the folder; from here on the new one can only fail while it computes."""
    if rank() == 0:
        earlier.remove()
    context.replaced = 0


def prune_blocks(context: RunContext, prepared: Prepared, checkpoint: PruningCheckpoint | None) -> None:
    """Prune the model in place and write the reports; nothing where the run only measures.

    Raises:
        Interrupted: a signal asked to stop.
    """
    config = context.config
    if prepared.calibration is None or checkpoint is None:
        return
    if config.settings.offload is Offload.disk:  # pruned blocks are written there one by one
        own_model.begin(context.folder, context.model_folder.name)
    statistics = _shared_statistics(context, prepared)
    context.bench.about_to_prune(prepared.blocks)
    clear_reports(context.folder)
    with progress("pruning blocks", len(prepared.blocks)) as advance, stop_request.listening():

        def on_block(index: int, count: int, reports: Sequence[MatrixReport]) -> None:
            context.add_reports(reports)
            means = block_means(reports)
            context.tracker.log_block(index, means)
            error = means.get("relative_output_error", math.nan)
            log.debug("block %d of %d: mean relative output error %.4f", index + 1, count, error)
            advance(index + 1)

        runtime = PruneRuntime(
            batch_size=config.calibration.batch_size,
            placement=prepared.memory.placement,
            folder=context.folder,
            on_block=on_block,
            statistics=statistics,
            checkpoint=checkpoint,
            should_stop=context.should_stop,
        )
        try:
            result = prune(prepared.loaded, prepared.calibration.ids, config.spec, runtime, prepared.blocks)
        except Interrupted as error:
            raise Interrupted(error.signal, checkpoint.after_interruption) from None
    for name, seconds in result.seconds.items():
        context.seconds[name] = context.seconds.get(name, 0) + seconds


def save(context: RunContext, prepared: Prepared, checkpoint: PruningCheckpoint | None = None) -> Path | None:
    """Write the pruned model where the run saves it, or where a failed evaluation can be repeated from it.

    The model comes first, and what can be small comes after it: from then on nothing costs the pruning.

    Args:
        context: the run.
        prepared: its inputs; the model is pruned.
        checkpoint: finds its blocks in the saved model from now on; None: there is none.

    Returns:
        Its folder; None where no model was written.

    What goes wrong is raised at the end of the run: the pruned model in memory is still measured and recorded.
    """
    if checkpoint is not None and context.writes_model:
        checkpoint.give_room(saved_bytes(prepared.loaded))
    folder = _written(context, prepared) if context.writes_model else None
    if folder is not None and checkpoint is not None and context.saved is not None:
        checkpoint.find_in(folder, context.saved.shards)
    if prepared.calibration is not None and "masks" in context.config.tracking.artifacts and rank() == 0:
        _write_masks(context, prepared)
    return folder


def _write_masks(context: RunContext, prepared: Prepared) -> None:
    path = context.folder / MASKS
    try:
        save_masks(prepared.blocks, path)
    except OSError as error:
        problem = disk_problem(error, str(path))
        if problem is None:
            raise
        told = f"the masks could not be saved: {problem}; the run's measurements are in result.json"
        context.save_problem = context.save_problem or ModelError(told)


def _written(context: RunContext, prepared: Prepared) -> Path | None:
    folder = context.model_folder
    with phase(context.seconds, "save"):
        try:
            own_model.begin(context.folder, folder.name)
            context.saved = save_model(prepared.loaded, folder)
        except TokenizerError as error:
            problem: ModelError = error
        except Exception as error:  # a full disk, a model class whose saving is broken
            problem = _save_problem(error, folder)
            _remove_half_saved(folder, context.config.settings.offload)
        else:
            _list_files(context, folder)
            return folder
    if context.saves_model:
        context.save_problem = problem
    else:
        log.warning("%s", problem)
    return None


def _list_files(context: RunContext, folder: Path) -> None:
    """Say that the model is complete; one that could be written stays, even if that can't be."""
    try:
        own_model.complete(context.folder, folder.name, context.saved.shards if context.saved is not None else {})
    except OSError as error:
        if not is_disk_error(error):
            raise
        log.warning("the files of %s can't be listed yet (%s)", folder, first_line(error))


def record(context: RunContext, unfinished: Unfinished) -> RunRecord:
    """Write the record, which is the last of a run's files.

    Raises:
        ModelError: the model or its masks could not be saved.
        OSError: the disk is full.
    """
    config = context.config
    paths = absolute_paths(config, context.folder)  # where they are now: another attempt may have made the measurements
    tasks = {key: own for key, own in context.inputs.items() if key.startswith(TASKS)}  # of this attempt
    inputs = unfinished.record.inputs | tasks
    environment = describe_environment(context.device)
    result = replace(
        unfinished.record,
        seconds=context.seconds,
        config=config.resolved(),
        paths=paths,
        inputs=inputs,
        date=now(),
        resumed=environment if environment != unfinished.record.environment else None,
    )
    folder = unfinished.model_folder
    if folder is None or not context.saves_model:
        result = replace(result, saved=None)  # an unsaved model goes when the run ends
    if folder is not None and context.saves_model:
        folder, result = kept_model(context, folder, result)
    context.complete_reports()
    result = finish_record(context.folder, result, is_saved=folder is not None and folder.name == MODEL)
    if context.save_problem is not None:
        raise context.save_problem
    return result


def _shared_statistics(context: RunContext, prepared: Prepared) -> DenseStatistics | None:
    """Statistics of the dense model that runs of this process share; None where blocks see pruned inputs."""
    config = context.config
    if config.settings.propagation is not Propagation.dense:
        return None
    spec, routers = config.spec, config.model.prune_routers
    key: list[object] = [vars(config.calibration), config.settings.seed, config.model.exclude, routers]
    key += [spec.sampled_rows, spec.gram_precision]
    return context.bench.statistics(key, spec.statistics_kind, prepared.blocks)


def _save_problem(error: Exception, folder: Path) -> ModelError:
    if isinstance(error, StatpruneError):  # it was saved, and is not the model in memory
        return ModelError(f"the pruned model could not be saved: {error}; its measurements are in result.json")
    advice = "run again with room on the disk to save it" if is_disk_error(error) else "it can't be saved as it is"
    return ModelError(
        f"the pruned model could not be saved to {folder} ({type(error).__name__}: {first_line(error)}); "
        f"its measurements are in result.json, {advice}"
    )


def _remove_half_saved(folder: Path, offload: Offload) -> None:
    (folder / "config.json").unlink(missing_ok=True)  # without it nobody takes the folder for a model
    if offload is not Offload.disk:  # there the model's blocks are read from the folder, and still to be evaluated
        own_model.remove(
            folder.parent, folder.name, None
        )  # the remaining files take room on a disk that has too little
