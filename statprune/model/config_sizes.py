"""Sizes in a model's configuration that can't be meant, found before anything of their size is made."""

from collections.abc import Iterator, Mapping

from torch import nn

from statprune.errors import ModelError
from statprune.model.stored import StoredCheckpoint

# the names that configurations of transformers' families have for them
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model", "vocab_size")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "decoder_attention_heads")
FEED_FORWARD = ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner", "d_ff", "dff", "decoder_ffn_dim")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "n_shared_experts", "num_experts_per_tok")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
POSITIVE = (*LAYERS, *WIDTHS, *HEADS, "head_dim", *POSITIONS)
# where no file tells what is possible: nobody has trained a model with more
MOST_LAYERS, LARGEST = 10_000, 100_000_000
# some families have keys that they don't use, with values from the class: those are larger than any tensor
FACTOR = 1_000
MOST_LETTERS = 40


def check_sizes(config: Mapping[str, object], stored: StoredCheckpoint | None) -> None:
    """Raise ModelError where a size is no positive whole number, or out of all proportion to the checkpoint.

    Args:
        config: what config.json holds.
        stored: the tensors; None where they are not known.
    """
    for key, value in _sizes(config):
        name = key.rpartition(".")[2]
        if value is None or isinstance(value, list):  # left to the class, or one for each layer
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refusal(key, value, "a size is a whole number")
        if value < 0:
            raise _refusal(key, value, "a size can't be negative")
        if value == 0 and name in POSITIVE:
            raise _refusal(key, value, "a model has at least one")
        if problem := _too_large(name, value, stored):
            raise _refusal(key, value, problem)


def check_parameters(config: Mapping[str, object], model: nn.Module, stored: StoredCheckpoint) -> None:
    """Raise ModelError where a model is far larger than its checkpoint, which transformers would fill at random.

    Args:
        config: what config.json holds.
        model: made from it, without values.
        stored: the tensors.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())  # such as masks of all positions
    if parameters <= 2 * stored.numel + 2**24 and buffers <= 4 * stored.numel + 2**30:
        return
    longest = stored.longest
    suspects = [f"{key}={value}" for key, value in _sizes(config) if isinstance(value, int) and value > longest]
    raise ModelError(
        f"config.json describes a model of {parameters + buffers:,} values, and its checkpoint holds {stored.numel:,}"
        + (f" in tensors of at most {longest} rows or columns (it has {', '.join(suspects)})" if suspects else "")
        + "; give the config.json that belongs to the checkpoint"
    )


def _sizes(config: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    """Keys with sizes by path, ``text_config.hidden_size``, and their values."""
    for key, value in config.items():
        if key in (*POSITIVE, *FEED_FORWARD, *EXPERTS):
            yield path + key, value
        elif isinstance(value, Mapping):
            yield from _sizes(value, f"{path}{key}.")


def _too_large(name: str, value: int, stored: StoredCheckpoint | None) -> str | None:
    if stored is None or not stored.tensors:
        return "no model has so many" if value > (MOST_LAYERS if name in LAYERS else LARGEST) else None
    if name in LAYERS:
        held = len(stored.tensors)
        return f"its checkpoint has {held} tensors" if value > max(held, 1) else None
    if name in POSITIONS:  # rotary positions take no room; others are counted with the parameters
        return None
    held = max(len(stored.tensors), stored.longest) if name in EXPERTS else stored.longest
    return f"the longest side of its checkpoint's tensors is {stored.longest}" if value > FACTOR * held else None


def _refusal(key: str, value: object, reason: str) -> ModelError:
    shown = repr(value)
    if len(shown) > MOST_LETTERS:
        shown = f"{shown[:MOST_LETTERS]}…"
    return ModelError(f"config.json has {key}={shown}, but {reason}; give the config.json that belongs to the model")
