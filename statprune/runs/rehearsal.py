"""Saving is tried before anything is pruned: what can't be written, and a disk without room, are known early."""

import logging

from statprune.errors import ModelError
from statprune.model.room import saved_bytes
from statprune.model.saving import rehearse_saving
from statprune.runs.context import RunContext
from statprune.runs.prepare import Prepared
from statprune.system.disk import readable

log = logging.getLogger(__name__)
REPORT, REST = 2**10, 2**15  # bytes of a matrix's report, and of record and losses of a small run


def check_saving(context: RunContext, prepared: Prepared) -> None:
    """Try to write all but the weights, and see whether there is room for them; nothing where no model is written.

    Raises:
        ModelError: the model that the run is to save can't be saved. One that is only kept until it is evaluated is
            worth a warning.
    """
    if not context.writes_model:
        return
    try:
        rehearse_saving(prepared.loaded)
        _check_room(context, prepared)
    except ModelError as error:
        if context.saves_model:
            raise
        log.warning("the pruned model can't be kept until it is evaluated: %s", error)


def _check_room(context: RunContext, prepared: Prepared) -> None:
    """Raise ModelError where the model, the hidden states that wait on disk and the small files don't fit."""
    model, room = saved_bytes(prepared.loaded), context.room
    if context.config.settings.compresses_model:  # at the most as much again, until the dense copy goes
        model *= 2
    needed = model + prepared.memory.written + _small_files(context, prepared)
    if needed > room:
        raise ModelError(
            f"the pruned model takes {readable(needed)} below {context.folder}, with what is written beside it, and "
            f"{readable(room)} are free there; make room, or give a hydra.run.dir elsewhere"
        )


def _small_files(context: RunContext, prepared: Prepared) -> int:
    """Bytes of the run's other files, roughly: reports, masks, record and losses."""
    matrices = [matrix for block in prepared.blocks for matrix in block.matrices]
    masks = sum(matrix.weights for matrix in matrices) // 8 if "masks" in context.config.tracking.artifacts else 0
    return masks + len(matrices) * REPORT + REST
