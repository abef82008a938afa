"""``statprune.save``: a folder that ``from_pretrained`` opens, with tokenizer and a card that says what was done."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.api.arguments import opened_model
from statprune.api.card import card
from statprune.api.tokens import tokenizer_of
from statprune.errors import ModelError, StatpruneError, first_line
from statprune.model.checkpoint import DiskSource
from statprune.model.compressed import write_compressed
from statprune.model.coverage import sparsity
from statprune.model.lengths import probe_window
from statprune.model.loading import LoadedModel, ModelSource
from statprune.model.saving import save_model
from statprune.pruning.spec import PruneResult
from statprune.runs.card_parts import SIGNATURE
from statprune.walk.discover import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD = "README.md"


def save(
    model: "LoadedModel | PreTrainedModel",
    folder: str | Path,
    *,
    result: PruneResult | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    compressed: bool = False,
) -> Path:
    """Write a model with its tokenizer and a model card; zeros are exact, tied weights stay tied.

    The card's sparsity is counted on the weights that are written. A folder that statprune saved before is replaced
    once the new one is complete; one that holds anything else is refused.

    Args:
        model: what ``load_model`` returns, or a transformers model.
        folder: to be made, or empty, or saved by this function before.
        result: what ``prune`` returned: the card then says how the model was pruned.
        tokenizer: None: the ``LoadedModel``'s.
        compressed: store sparse matrices as bits and the weights that are left: ``load_compressed`` opens the folder,
            and ``statprune decompress`` gives the one that is saved without.

    Returns:
        The folder.

    Raises:
        StatpruneError: the folder holds something else, or can't be written to.
        ModelError: there is no tokenizer, or ``result`` is none.

    Examples:
        >>> from statprune import load_model, prune, save
        >>> loaded = load_model()
        >>> result = prune(loaded, "wanda", "2:4")
        >>> folder = save(loaded, "my/pruned", result=result)
        >>> sorted(file.name for file in folder.glob("*.safetensors"))
        ['model.safetensors']
    """
    network = opened_model(model, "save")
    if result is not None and not isinstance(result, PruneResult):
        raise ModelError(f"result is what prune() returns, and this is of the type {type(result).__name__}")
    own = tokenizer_of(model, tokenizer, "to save the model with")
    is_loaded = isinstance(model, LoadedModel)
    # a transformers model has the dtype that its user chose
    own_dtype = str(network.dtype).removeprefix("torch.")
    source = model.source if isinstance(model, LoadedModel) else ModelSource(_path_of(network), own_dtype)
    loaded = LoadedModel(network, own, model.streamer if isinstance(model, LoadedModel) else None, source)
    target = Path(folder).expanduser()
    _check_folder(loaded, target, compressed)
    blocks = find_blocks(model if is_loaded else network, probe_window(network))
    text = card(source, sparsity(blocks), result, network.device, compressed)
    try:
        _write(loaded, target, text, compressed)
    except OSError as error:
        raise StatpruneError(
            f"the model could not be saved to {target} ({type(error).__name__}: {first_line(error)}); "
            "make room there, or give another folder"
        ) from error
    return target


def _path_of(network: "PreTrainedModel") -> str:
    """Where a transformers model was opened from, as far as it knows."""
    return str(getattr(network.config, "_name_or_path", "") or type(network).__name__)


def _check_folder(loaded: LoadedModel, folder: Path, compressed: bool) -> None:
    if loaded.streamer is not None and isinstance(loaded.streamer.source, DiskSource):
        own = loaded.streamer.source.folder
        if compressed:
            raise StatpruneError(
                f"the pruned blocks of this model wait on disk, in {own}, and are read from there; save it there "
                f"without compressed, and give statprune compress {own} FOLDER"
            )
        if folder.resolve() != own.resolve():
            raise StatpruneError(f"the pruned blocks of this model wait on disk, in {own}; save it there")
        return
    if folder.exists() and not folder.is_dir():
        raise StatpruneError(f"{folder} is a file; give a folder")
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        raise StatpruneError(f"{folder} holds something that statprune did not save; give a new or an empty folder")


def _is_ours(folder: Path) -> bool:
    path = folder / CARD
    return path.is_file() and SIGNATURE in path.read_text(encoding="utf-8", errors="replace")


def _write(loaded: LoadedModel, folder: Path, text: str, compressed: bool) -> None:
    if loaded.streamer is not None and isinstance(loaded.streamer.source, DiskSource):
        save_model(loaded, folder)
        (folder / CARD).write_text(text, encoding="utf-8")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder: the model may have been opened from there, and is complete before the old one goes
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        if compressed:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as dense:
                save_model(loaded, Path(dense))
                write_compressed(Path(dense), temporary)
        else:
            save_model(loaded, temporary)
        (temporary / CARD).write_text(text, encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp's are for one user alone
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
