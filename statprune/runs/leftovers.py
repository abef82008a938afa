"""What a process leaves that is killed after its run was finished, and nobody runs again."""

import shutil
from contextlib import suppress
from pathlib import Path

from statprune.errors import StatpruneError
from statprune.runs import own_model
from statprune.runs.store import CHECKPOINT, UNSAVED, leftovers, read_record, remove_leftovers
from statprune.system.lock import LOCK, locked


def tidy(folder: Path) -> None:
    """Remove what dead processes left in the folder of a finished run; nothing while a living one writes there."""
    unused = [folder / name for name in (UNSAVED, CHECKPOINT)]
    if not any(path.exists() for path in (*unused, folder / LOCK)) and not leftovers(folder):
        return
    with suppress(StatpruneError, OSError), locked(folder, patience=0.0):
        record = read_record(folder)
        if record is None or not record.is_finished:  # another process began to run it again
            return
        remove_leftovers(folder)
        own_model.remove(folder, UNSAVED, record)
        if not (folder / CHECKPOINT).is_symlink():
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
