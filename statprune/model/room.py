"""How much room a model takes that is saved: on disk, and in memory while it is written."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from statprune.errors import ModelError
from statprune.model.checkpoint import DiskSource
from statprune.model.loading import LoadedModel
from statprune.model.location import locate_model
from statprune.model.offload import size_of
from statprune.model.opening import downloaded, stored_in
from statprune.model.saving import SHARD_BYTES
from statprune.model.stored import FLOATS, StoredCheckpoint

if TYPE_CHECKING:
    from statprune.model.offload import Streamer

BESIDE = 2**14  # configuration, tokenizer and card, at the least


def saved_bytes(loaded: LoadedModel) -> int:
    """Bytes that saving the model takes, tied tensors counted once.

    Where its blocks are pruned on disk, what pruning writes is the model. A shard that is written again, since tensors
    get the checkpoint's own dtype back, takes as much room beside it.
    """
    tensors, shard = _model_bytes(loaded), shard_bytes(loaded)
    streamer, twice = loaded.streamer, 0
    if streamer is not None and isinstance(streamer.source, DiskSource):
        twice = sum(streamer.block_bytes) if _is_written_twice(streamer, streamer.source) else 0
    stored = _stored(loaded) if loaded.source.dtype == "auto" else None
    if stored is None:
        return tensors + twice + BESIDE
    wider = max(tensors, _float_bytes(stored))
    memory = {FLOATS.get(parameter.dtype, "") for parameter in loaded.model.parameters()}
    changes = any(tensor.holds_floats and tensor.dtype not in memory for tensor in stored.tensors.values())
    return wider + twice + (shard * wider // max(1, tensors) if changes else 0) + BESIDE


def shard_bytes(loaded: LoadedModel) -> int:
    """Bytes of the largest shard, which safetensors has in memory once more while it is written."""
    tensors, streamer = _model_bytes(loaded), loaded.streamer
    if streamer is not None and isinstance(streamer.source, DiskSource):
        return max(*streamer.block_bytes, tensors - sum(streamer.block_bytes))  # or all that is no block
    return min(tensors, SHARD_BYTES)


def _model_bytes(loaded: LoadedModel) -> int:
    return sum(size_of(parameter) for parameter in loaded.model.parameters())


def _stored(loaded: LoadedModel) -> StoredCheckpoint | None:
    """What the checkpoint holds that was opened; None where nobody can tell."""
    location, config = locate_model(loaded.source.path), loaded.model.config.to_dict()
    try:
        if Path(location).exists():
            return stored_in(location, config) if Path(location).is_dir() else None
        return downloaded(location, config, loaded.source.revision)
    except (OSError, ValueError, ModelError):  # a model that was made in Python
        return None


def _float_bytes(stored: StoredCheckpoint) -> int:
    sizes = {name: dtype.itemsize for dtype, name in FLOATS.items()}
    return sum(tensor.numel * sizes[tensor.dtype] for tensor in stored.tensors.values() if tensor.holds_floats)


def _is_written_twice(streamer: "Streamer", source: DiskSource) -> bool:
    """Whether blocks are kept as the model has them beside their shards, as mixtures are that the model fuses."""
    names = dict(streamer.modules[0].named_parameters())
    return source.renames(_meta(names.items()))


def _meta(parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(value.shape, dtype=value.dtype, device="meta") for name, value in parameters}
