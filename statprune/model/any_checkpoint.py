"""Open whatever holds a model: what ``load_model`` opens, a run's folder, or a folder that was compressed."""

from collections.abc import Collection
from pathlib import Path

from statprune.errors import ModelError
from statprune.model.checkpoint_tensors import CheckpointTensors, open_checkpoint
from statprune.model.compressed import is_compressed, load_compressed, sizes_of
from statprune.model.converted import converted_models, kept_folder
from statprune.model.loading import LoadedModel, ModelSource, load_model, open_model
from statprune.model.location import RUN_RECORD, SAVED_MODEL, locate_model

CACHE = "outputs/.cache"  # where runs keep converted models unless told otherwise


def saved_by_run(path: str) -> str:
    """The folder of the model that a run saved, where ``path`` is a run's; else ``path`` itself.

    Raises:
        ModelError: the run saved none.
    """
    folder = Path(locate_model(path))
    if not (folder / RUN_RECORD).is_file() or (folder / "config.json").is_file():
        return path
    if not (folder / SAVED_MODEL).is_dir():
        raise ModelError(f"{path} is a run that saved no model; run it again with save_model=true")
    return str(Path(path) / SAVED_MODEL)


def open_dense(path: str, names: Collection[str]) -> CheckpointTensors:
    """The tensors of a dense model that a checkpoint with such names was made from.

    A .gguf file names and lays its tensors out otherwise: then those of the model that it is converted to, which is
    kept where runs keep it.

    Args:
        path: as for ``open_any``.
        names: of the checkpoint's tensors.

    Raises:
        ModelError: there is none, it is damaged, or it can't be converted.
    """
    path = saved_by_run(path)
    dense = open_checkpoint(path)
    if not path.endswith(".gguf") or not dense.readers.keys().isdisjoint(names):
        return dense
    models = converted_models(CACHE)
    folder = kept_folder(Path(locate_model(path)), models)
    if folder is None:
        open_model(ModelSource(path), converted=models)
        folder = kept_folder(Path(locate_model(path)), models)
    if folder is None:
        raise ModelError(f"{path} was converted, but could not be kept in {models}; give it room there")
    return open_checkpoint(str(folder))


def open_any(path: str, dtype: str = "auto", device: str = "cpu") -> tuple[LoadedModel, int]:
    """A model, and the bytes of its files of tensors.

    Args:
        path: folder of a model or of a run that saved one, compressed folder, .gguf file, ``pkg://`` or hub id.
        dtype: as for ``load_model``; so is the next.
        device: where it is to be.

    Raises:
        ModelError: there is none, it is damaged, or its run saved none.
    """
    path = saved_by_run(path)
    folder = Path(locate_model(path))
    if is_compressed(folder):
        return load_compressed(folder, dtype=dtype, device=device), sizes_of(folder).compressed
    loaded = load_model(path, dtype=dtype, device=device)
    return loaded, open_checkpoint(path).bytes
