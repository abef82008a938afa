"""Save a model, or only its masks."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from statprune.model.checkpoint import DiskSource
from statprune.model.loading import LoadedModel, module_lists
from statprune.model.matrix import Block
from statprune.model.offload import Streamer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a folder that ``from_pretrained`` opens, zeros exact; ``save`` also writes a card.

    Example:
        >>> from pathlib import Path
        >>> from statprune import load_model, save_model
        >>> save_model(load_model(), Path("copy"))
        >>> load_model("copy").source.path
        'copy'
    """
    if loaded.streamer is None:
        loaded.model.save_pretrained(folder)
    else:
        _save_streamed(loaded.model, loaded.streamer, folder)
    loaded.tokenizer.save_pretrained(folder)


def _save_streamed(model: "PreTrainedModel", streamer: Streamer, folder: Path) -> None:
    streamer.settle()
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    on_device = {name: tensor.detach() for name, tensor in state.items() if not streamer.streams(tensor)}
    if isinstance(streamer.source, DiskSource):
        streamer.source.finish(lambda path: model.save_pretrained(path, state_dict=on_device))
        return
    path = next(iter(module_lists(model)))
    for index in range(len(streamer.modules)):
        on_device |= {f"{path}.{index}.{name}": tensor for name, tensor in streamer.source.read(index).items()}
    model.save_pretrained(folder, state_dict=on_device)


def save_masks(blocks: Iterable[Block], path: Path) -> None:
    """Write one bit per weight, 1 where it is kept, under the matrices' full names.

    Rows are those of the stored matrix, packed by ``numpy.packbits``.
    """
    masks: dict[str, np.ndarray] = {}
    for block in blocks:
        with block.loaded():
            for matrix in block.matrices:
                masks[block.full_name(matrix)] = np.packbits((matrix.stored != 0).cpu().numpy(), axis=1)
    np.savez(path, **masks)  # type: ignore[arg-type]  # its stubs take the names for allow_pickle
