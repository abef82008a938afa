"""Save a model, or only its masks."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.checkpoint import DiskSource
from statprune.model.loading import LoadedModel, module_lists
from statprune.model.matrix import Block
from statprune.model.offload import Streamer
from statprune.model.saved import Expected, SavedModel, check_saved, expect, restore_dtypes
from statprune.model.source_tensors import SourceTensors, copy_side_files
from statprune.system.files import replacing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARD_BYTES = 5 * 10**9
# a shard that is written again, since its tensors have another dtype, takes as much room beside it
SHARD = f"{SHARD_BYTES // 10**9}GB"


class TokenizerError(ModelError):
    """The model was saved whole; only its tokenizer or another small file could not be."""


def save_model(loaded: LoadedModel, folder: Path) -> SavedModel:
    """Write a folder that ``from_pretrained`` opens, zeros exact; ``save`` also writes a card.

    With ``model.dtype=auto`` every tensor has the checkpoint's own dtype, and those that were not pruned its very
    bytes, also where the model computes in another dtype. With an explicit dtype all have that one. Then the files are
    opened again and compared with the memory, tensor by tensor.

    Returns:
        What was compared.

    Raises:
        ModelError: what was written differs from the memory.
        TokenizerError: the model was saved, but not its tokenizer.

    Examples:
        >>> from pathlib import Path
        >>> from statprune import load_model, save_model
        >>> saved = save_model(load_model(), Path("copy"))
        >>> load_model("copy").source.path
        'copy'
    """
    if loaded.streamer is None:
        loaded.model.save_pretrained(folder, max_shard_size=SHARD)
        expected = _expected(loaded.model, loaded.model.state_dict())
    else:
        expected = _save_streamed(loaded.model, loaded.streamer, folder)
    changed = 0
    if loaded.source.dtype == "auto":
        changed = restore_dtypes(folder, SourceTensors(loaded.source, loaded.model.base_model_prefix))
    saved = replace(check_saved(folder, expected), own_dtype=changed)
    try:
        loaded.tokenizer.save_pretrained(folder)
        copy_side_files(loaded.source, folder)
    except Exception as error:
        raise TokenizerError(
            f"the model was saved to {folder}, but its tokenizer could not be ({type(error).__name__}: "
            f"{first_line(error)}); copy the tokenizer's files of its base model there"
        ) from error
    return saved


def rehearse_saving(loaded: LoadedModel) -> None:
    """Write everything but the weights into a temporary folder.

    Raises:
        ModelError: the configuration, the generation configuration or the tokenizer can't be written.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    parts: dict[str, tuple[str, Callable[[str], object]]] = {
        "configuration": ("correct its config.json", model.config.save_pretrained),
        "tokenizer": ("correct the tokenizer's files", tokenizer.save_pretrained),
    }
    if model.can_generate() and getattr(model, "generation_config", None) is not None:
        advice = "correct its generation_config.json, or remove that file"
        parts["generation configuration"] = (advice, model.generation_config.save_pretrained)
    for what, (advice, write) in parts.items():
        with TemporaryDirectory(prefix="statprune-") as folder:
            try:
                write(folder)
            except Exception as error:  # validation ends in almost any error type
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ModelError(
                    f"the model could not be saved once it is pruned: its {what} is refused ({reason}); {advice}"
                ) from error


def _save_streamed(model: "PreTrainedModel", streamer: Streamer, folder: Path) -> Expected:
    streamer.settle()
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    on_device = {name: tensor.detach() for name, tensor in state.items() if not streamer.streams(tensor)}
    if isinstance(streamer.source, DiskSource):
        source = streamer.source
        rest: dict[str, Tensor] = {}

        def save_rest(path: Path) -> None:  # a block's buffers may be in its shard
            rest.update({name: tensor for name, tensor in on_device.items() if name not in source.names_written})
            model.save_pretrained(path, state_dict=dict(rest))

        source.finish(save_rest)
        return {**_expected(model, rest), **source.written()}
    path = next(iter(module_lists(model)))
    for index in range(len(streamer.modules)):
        on_device |= {f"{path}.{index}.{name}": tensor for name, tensor in streamer.source.read(index).items()}
    model.save_pretrained(folder, state_dict=dict(on_device), max_shard_size=SHARD)
    return _expected(model, on_device)


def _expected(model: "PreTrainedModel", state: dict[str, Tensor]) -> Expected:
    """The tensors that the files have to hold, by the names and in the shapes that a checkpoint has.

    Of tensors that share their memory one stands for all, the one that transformers writes.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    ignored = set(model._keys_to_ignore_on_save or ())
    own = {name: tensor for name, tensor in state.items() if name not in ignored}
    own = remove_tied_weights_from_state_dict(own, model)
    kept = {tensor.data_ptr() for tensor in own.values()}
    dropped = [name for name in state if name not in own and name not in ignored]
    lost = [name for name in dropped if state[name].data_ptr() not in kept]
    if lost:
        raise ModelError(f"{type(model).__name__} has the tensor {lost[0]}, which transformers does not save")
    return expect(revert_weight_conversion(model, own))


def save_masks(blocks: Iterable[Block], path: Path) -> None:
    """Write one bit per weight, 1 where it is kept, under the matrices' full names.

    Rows are those of the stored matrix, packed by ``numpy.packbits``.
    """
    masks: dict[str, np.ndarray] = {}
    for block in blocks:
        with block.loaded():
            for matrix in block.matrices:
                masks[block.full_name(matrix)] = np.packbits((matrix.stored != 0).cpu().numpy(), axis=1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **masks)  # type: ignore[arg-type]  # its stubs take the names for allow_pickle
