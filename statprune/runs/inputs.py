"""What a run read: the identity of its local files and of the hub's model, and what has changed since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.config.schema import RunConfig
from statprune.data.sources import CALIBRATION, EVALUATION, get_source
from statprune.errors import StatpruneError
from statprune.evaluation.task_files import task_files
from statprune.evaluation.tasks import is_path
from statprune.model.model_files import hub_commit, model_files
from statprune.system.contents import FileIdentity, identity_of, is_same, key_of
from statprune.system.distributed import gathered, rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL, TASKS = "model.path", "evaluation.tasks."


@dataclass(frozen=True)
class InputIdentity:
    """What a run read under one key of its configuration.

    Attributes:
        files: local files, by their names in the folder that the key names.
        commit: that of a model from the hub; None: it was local.
    """

    files: dict[str, FileIdentity] = field(default_factory=dict)
    commit: str | None = None


Inputs = dict[str, InputIdentity]  # by key: model.path, calibration.path, evaluation.path, evaluation.tasks.0 and so on


def read_inputs(config: RunConfig) -> Inputs:
    """What the inputs of a run are now, the same in every process; a model of the hub's is added once it is open.

    Raises:
        StatpruneError: one of the files can't be read.
    """
    result: Inputs = {}
    if rank() == 0:
        for key, files in _local_files(config).items():
            result[key] = InputIdentity({name: _identity(key, file, config) for name, file in files.items()})
    return gathered(result)[0]


def add_hub_model(inputs: Inputs, model: "PreTrainedModel") -> None:
    """Add the commit of an opened model that came from the hub."""
    commit = getattr(model.config, "_commit_hash", None)
    if MODEL not in inputs and commit is not None:
        inputs[MODEL] = InputIdentity(commit=commit)


def input_key(inputs: Mapping[str, InputIdentity], key: str) -> list[object] | None:
    """What tells the input of one key from others, for what is kept in memory or in a cache; None: nothing local."""
    own = inputs.get(key)
    return None if own is None else [*key_of(own.files), own.commit]


def changes(before: Mapping[str, InputIdentity], config: RunConfig) -> dict[str, str]:
    """What has changed since a run read it, by key: a part of a sentence.

    Inputs that are not there now, and those that the record says nothing about, count as unchanged.

    Args:
        before: what was read.
        config: of the run; ``verify_inputs`` compares hashes even where sizes and times are the same.
    """
    verify = config.settings.verify_inputs
    result: dict[str, str] = {}
    for key, files in _local_files(config).items():
        own = before.get(key)
        if own is not None and own.files and (what := _change(own.files, files, verify)):
            result[key] = f"{_typed(config, key)} has changed since ({what})"
    known = before[MODEL].commit if MODEL in before else None
    commit = hub_commit(config.model.path, config.model.revision) if known is not None else None
    if commit is not None and commit != known:
        result[MODEL] = f"{_typed(config, MODEL)} has changed since (commit {commit[:8]} in place of {str(known)[:8]})"
    return result


def _change(before: Mapping[str, FileIdentity], files: Mapping[str, Path], verify: bool) -> str | None:
    """The first file that is another one, in words."""
    try:
        for name, own in before.items():
            if name not in files:
                return f"{name} is gone"
            if not is_same(files[name], own, verify):
                return f"{name} is another"
    except OSError as error:  # whoever reads it will be told
        return f"{error.filename} can't be read"
    new = next((name for name in files if name not in before), None)
    return None if new is None else f"{new} is new"


def _local_files(config: RunConfig) -> dict[str, dict[str, Path]]:
    """The local files of each key, by name; a key without any is absent."""
    calibration, evaluation = config.calibration, config.evaluation
    result = {MODEL: model_files(config.model.path)}
    if calibration.path is not None and not config.is_dense:
        result["calibration.path"] = get_source(calibration.source).files_read(CALIBRATION, calibration.path)
    for source in evaluation.datasets:
        if (path := evaluation.path_of(source)) is not None:
            result["evaluation.path"] = get_source(source).files_read(EVALUATION, path)
    for number, task in enumerate(evaluation.tasks):
        if is_path(task):
            result[f"{TASKS}{number}"] = task_files(task)
    return {key: files for key, files in result.items() if files}


def _identity(key: str, file: Path, config: RunConfig) -> FileIdentity:
    try:
        return identity_of(file, in_full=key != MODEL or config.settings.verify_inputs)
    except OSError as error:
        raise StatpruneError(f"{_typed(config, key)}: {file} can't be read ({error.strerror}); give another") from error


def _typed(config: RunConfig, key: str) -> str:
    """The key and its value, as they were typed."""
    if key.startswith(TASKS):
        return f"evaluation.tasks has {config.evaluation.tasks[int(key.removeprefix(TASKS))]}, which"
    section, _, name = key.partition(".")
    return f"{key}={getattr(getattr(config, section), name)}"
