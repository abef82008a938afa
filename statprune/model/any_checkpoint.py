"""Open whatever holds a model: what ``load_model`` opens, a run's folder, or a folder that was compressed."""

from pathlib import Path

from statprune.errors import ModelError
from statprune.model.checkpoint_tensors import open_checkpoint
from statprune.model.compressed import is_compressed, load_compressed, sizes_of
from statprune.model.loading import LoadedModel, load_model
from statprune.model.location import RUN_RECORD, SAVED_MODEL, locate_model


def open_any(path: str, dtype: str = "auto", device: str = "cpu") -> tuple[LoadedModel, int]:
    """A model, and the bytes of its files of tensors.

    Args:
        path: folder of a model or of a run that saved one, compressed folder, .gguf file, ``pkg://`` or hub id.
        dtype: as for ``load_model``; so is the next.
        device: where it is to be.

    Raises:
        ModelError: there is none, it is damaged, or its run saved none.
    """
    folder = Path(locate_model(path))
    if (folder / RUN_RECORD).is_file() and not (folder / "config.json").is_file():
        if not (folder / SAVED_MODEL).is_dir():
            raise ModelError(f"{path} is a run that saved no model; run it again with save_model=true")
        path = str(Path(path) / SAVED_MODEL)
        folder = folder / SAVED_MODEL
    if is_compressed(folder):
        return load_compressed(folder, dtype=dtype, device=device), sizes_of(folder).compressed
    loaded = load_model(path, dtype=dtype, device=device)
    return loaded, open_checkpoint(path).bytes
