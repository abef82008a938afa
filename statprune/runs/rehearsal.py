"""Saving is tried before anything is pruned: what can't be written, and a disk without room, are known early."""

import logging
import shutil

from statprune.config.sections import Offload
from statprune.errors import ModelError
from statprune.model.loading import LoadedModel
from statprune.model.saving import rehearse_saving, saved_bytes
from statprune.runs.context import RunContext

log = logging.getLogger(__name__)


def check_saving(context: RunContext, loaded: LoadedModel) -> None:
    """Try to write all but the weights, and see whether there is room for them; nothing where no model is written.

    Raises:
        ModelError: the model that the run is to save can't be saved. One that is only kept until it is evaluated is
            worth a warning.
    """
    if not context.writes_model:
        return
    try:
        rehearse_saving(loaded)
        _check_room(context, loaded)
    except ModelError as error:
        if context.saves_model:
            raise
        log.warning("the pruned model can't be kept until it is evaluated: %s", error)


def _check_room(context: RunContext, loaded: LoadedModel) -> None:
    needed, room = saved_bytes(loaded.model), shutil.disk_usage(context.folder).free
    if context.config.settings.offload is Offload.disk:  # the plan of memory has counted the blocks
        return
    if needed > room:
        raise ModelError(
            f"the pruned model takes {needed / 2**30:.2f} GiB below {context.folder}, where {room / 2**30:.2f} GiB are "
            "free; make room, or give a hydra.run.dir elsewhere"
        )
