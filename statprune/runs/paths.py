"""Where the files of a run were: a configuration holds paths as they were typed, which say nothing elsewhere."""

from pathlib import Path

from statprune.config.schema import RunConfig
from statprune.evaluation.tasks import is_path
from statprune.model.location import locate_model


def absolute_paths(config: RunConfig, folder: Path) -> dict[str, str]:
    """Absolute paths of the files and folders that a run read or wrote, without symbolic links.

    Args:
        config: the run's.
        folder: of the run.

    Returns:
        By the key of the configuration, ``evaluation.tasks.0`` for the first task, and ``folder`` for the run's own;
        what is not there, such as a hub id or another machine's file, is absent.
    """
    typed = {
        "folder": str(folder),
        "model.path": locate_model(config.model.path),
        "calibration.path": config.calibration.path,
        "evaluation.path": config.evaluation.path,
        "cache": config.settings.cache,
    }
    tasks = enumerate(config.evaluation.tasks)
    typed |= {f"evaluation.tasks.{number}": task for number, task in tasks if is_path(task)}
    places = {key: Path(path).expanduser().resolve() for key, path in typed.items() if path}
    return {key: str(place) for key, place in places.items() if place.exists()}
