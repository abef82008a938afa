"""Where a run lives: a folder that another version of statprune named otherwise is found again."""

from pathlib import Path

from statprune.config.naming import other_names
from statprune.config.schema import RunConfig
from statprune.errors import StatpruneError
from statprune.runs.store import RECORD, read_record


def place_of(config: RunConfig, folder: Path) -> Path:
    """The run's folder, or the one beside it that has an older name and holds this very run.

    Args:
        config: the run's.
        folder: named as this version names it.
    """
    if (folder / RECORD).exists():
        return folder
    for pattern in other_names(folder.name, config.model.path):
        for other in sorted(folder.parent.glob(pattern)):
            if other != folder and _holds(config, other):
                return other
    return folder


def _holds(config: RunConfig, folder: Path) -> bool:
    try:
        record = read_record(folder)
    except StatpruneError:  # damaged: nobody can tell whose it is
        return False
    return record is not None and record.config_hash == config.hash()
