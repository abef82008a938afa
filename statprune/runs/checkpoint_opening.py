"""Open a run's pruning checkpoint: what an earlier attempt left is taken up where it fits, and else discarded."""

import logging
from collections.abc import Mapping
from pathlib import Path

from statprune.config.schema import digest
from statprune.config.sections import Checkpoint
from statprune.data.windows import Windows
from statprune.errors import ModelError
from statprune.runs.checkpoint_files import CheckpointFiles
from statprune.runs.context import RunContext
from statprune.runs.dense_cache import fingerprint, software
from statprune.runs.inputs import MODEL, input_key
from statprune.runs.prepare import Prepared
from statprune.runs.pruning_checkpoint import Found, PruningCheckpoint
from statprune.runs.store import CHECKPOINT
from statprune.system.devices import device_name
from statprune.system.distributed import gathered, rank, size
from statprune.system.options import PlainValues

log = logging.getLogger(__name__)


def opened_checkpoint(context: RunContext, prepared: Prepared) -> PruningCheckpoint | None:
    """The run's checkpoint, with what an earlier attempt left; None where nothing is pruned.

    Raises:
        ModelError: checkpoint=true, and there is no room for it.
    """
    if prepared.calibration is None:
        return None
    mode, parts = context.config.settings.checkpoint, _parts(context, prepared, prepared.calibration)
    found = Found()
    if rank() == 0 and mode is not Checkpoint.false:
        files = CheckpointFiles(context.folder / CHECKPOINT)
        found = afresh(files) if context.config.settings.rerun else found_in(files, parts)
    found = gathered(found)[0]
    checkpoint = PruningCheckpoint(context.folder, mode, prepared.blocks, parts, found)
    context.resumed_blocks = len(found.blocks)
    if found.blocks:
        log.info(
            "resuming at block %d of %d (blocks before it were pruned in an earlier attempt); one forward of each "
            "rebuilds the hidden states",
            len(found.blocks),
            len(prepared.blocks),
        )
    problem = None
    if rank() == 0 and checkpoint.is_on:
        problem = checkpoint.lacks_room if mode is Checkpoint.true else None
        checkpoint.announce(f"checkpoint={mode.value}")
    if problem := gathered(problem)[0]:
        raise ModelError(f"pruned blocks can't be kept: {problem}")
    return checkpoint


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished.

    Args:
        folder: of the run.
    """
    if rank() == 0:
        CheckpointFiles(folder / CHECKPOINT).remove()


def _parts(context: RunContext, prepared: Prepared, calibration: Windows) -> dict[str, str]:
    """What the last bits of a pruned weight depend on, by what it is, each as a hash."""
    values = {
        "configuration": context.config.hash(),
        "model": [context.config.model.path, input_key(context.inputs, MODEL)],
        "calibration windows": fingerprint(calibration.ids),
        "software": software(),
        "device": device_name(context.device),
        "processes": size(),
    }
    return {name: digest(value, 32) for name, value in values.items()}


def afresh(files: CheckpointFiles) -> Found:
    """Nothing; what an earlier attempt left is removed."""
    if files.folder.exists():
        log.info("rerun=true: the blocks kept in %s are discarded", files.folder)
        files.remove()
    return Found()


def found_in(files: CheckpointFiles, parts: Mapping[str, str]) -> Found:
    """What an earlier attempt left that fits; the rest is removed, which is logged.

    Args:
        files: of the checkpoint.
        parts: what tells the run from others, by what it is.
    """
    if not files.folder.exists():
        return Found()
    header = files.read_header()
    if header is None or header.get("parts") != parts:
        files.remove()
        log.warning("%s is discarded, and pruning starts at the first block: %s", files.folder, _misfit(header, parts))
        return Found()
    blocks = files.read_blocks(digest(parts, 32))
    if files.has_description(len(blocks)):
        log.warning("block %d in %s is damaged: it is pruned again", len(blocks), files.folder)
    files.remove_after(len(blocks))
    return Found(blocks, header["ratios"], header["dense"])


def _misfit(header: PlainValues | None, parts: Mapping[str, str]) -> str:
    before = header.get("parts") if header is not None else None
    if not isinstance(before, dict):
        return "it is damaged"
    names = [name for name in parts if before.get(name) != parts[name]]
    return f"it was begun with other inputs (differing: {', '.join(names)})"
