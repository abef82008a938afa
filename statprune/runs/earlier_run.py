"""What an earlier run left in the folder of a run that starts anew: it goes only when the new one is ready to prune."""

from dataclasses import dataclass
from pathlib import Path

from statprune.config.schema import RunConfig
from statprune.config.sections import Offload
from statprune.errors import StatpruneError
from statprune.runs import own_model
from statprune.runs.record import RunRecord
from statprune.runs.store import MODEL, RECORD, UNSAVED, discard_kept_model, read_record


@dataclass(frozen=True)
class EarlierRun:
    """An earlier run of a folder.

    Attributes:
        config: of the run to come.
        folder: of both.
    """

    config: RunConfig
    folder: Path

    @property
    def model_bytes(self) -> int:
        """What the models that will be removed take on the disk."""
        record = _record_of(self.folder)
        models = [self.folder / name for name in (MODEL, UNSAVED) if own_model.owns(self.folder, name, record)]
        going = [model for model in models if not _is_input(self.config, model)]
        return sum(path.stat().st_size for model in going for path in model.rglob("*") if path.is_file())

    def remove(self) -> None:
        """Remove its record and models, which would be taken for the new run's; what a user put there stays."""
        discard_kept_model(self.folder)
        remove_own_model(self.config, self.folder)
        (self.folder / RECORD).unlink(missing_ok=True)


def model_problem(config: RunConfig, folder: Path) -> str | None:
    """Why the run can't write its model into its folder, in one sentence, or None.

    Args:
        config: of the run to come.
        folder: of the run.
    """
    record = _record_of(folder)
    for name in (MODEL, UNSAVED):
        path = folder / name
        is_written = config.settings.saves_model if name == MODEL else _keeps_model(config)
        if not (path.exists() or path.is_symlink()):
            continue
        if is_written and _is_input(config, path):
            return f"{path} holds the model that is read, and would be overwritten; give another hydra.run.dir"
        # a model that a run wrote, and somebody changed, would be taken for the new run's
        is_replaced = is_written or own_model.was_written(folder, name, record)
        if is_replaced and not _is_input(config, path) and not own_model.owns(folder, name, record):
            reason = own_model.foreign(folder, name)
            return f"{path} {reason}, and would be lost; move it away, or give another hydra.run.dir"
    return None


def _keeps_model(config: RunConfig) -> bool:
    """Whether the run writes its pruned model beside what it saves: to evaluate, stream or compress it."""
    is_read = bool(config.evaluation.tasks) or config.settings.offload is Offload.disk
    return is_read or config.settings.compresses_model


def _is_input(config: RunConfig, model: Path) -> bool:
    """Whether the run reads its model from that folder."""
    return Path(config.model.path).expanduser().resolve().is_relative_to(model.resolve())


def _record_of(folder: Path) -> RunRecord | None:
    """The folder's record; None also where it is damaged, and rerun=true replaces it."""
    try:
        return read_record(folder)
    except StatpruneError:
        return None


def remove_own_model(config: RunConfig, folder: Path) -> None:
    """Remove a model that an earlier run of this folder wrote; beside a new record it would be taken for the new run's.

    Args:
        config: of the run to come; a model that it prunes stays.
        folder: of the run.
    """
    record = _record_of(folder)
    for name in (MODEL, UNSAVED):
        if not _is_input(config, folder / name):
            own_model.remove(folder, name, record)
