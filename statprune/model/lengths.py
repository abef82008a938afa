"""Whether a model reads windows of a length, where its configuration does not say how many positions it has."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.model.loading import positions, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHORT = 2  # tokens, which every model reads
PROBE_TOKENS = 64  # of an input that only shows what the model does


def check_unnamed_limit(model: "PreTrainedModel", length: int, what: str) -> None:
    """Raise ModelError where a model without a limit in its configuration fails on an input of this length.

    Code of a model's own may call its limit anything, or have it in a table of positions alone; so it is tried. A
    model that fails on a few tokens, too, fails for another reason, which whoever looks for its blocks will tell.

    Args:
        model: a causal language model; blocks that are streamed come to the device as they are needed.
        length: tokens of the longest input.
        what: sets it, in a sentence: ``evaluation.seq_len=512``.
    """
    if positions(model) is not None:
        return
    reason = _failure(model, length)
    if reason is not None and _failure(model, SHORT) is None:
        raise ModelError(
            f"{what} is longer than {type(model).__name__} can read ({reason}), and its configuration does not say "
            "how many positions it has; lower it"
        )


def probe_window(model: "PreTrainedModel") -> Tensor:
    """Token ids of one window that the model can read, (1, tokens), where no text is at hand."""
    length = min(PROBE_TOKENS, positions(model) or PROBE_TOKENS)
    return torch.arange(length, device="cpu")[None] % vocabulary_size(model)


@torch.no_grad()
def _failure(model: "PreTrainedModel", length: int) -> str | None:
    """Why the model can't read so many tokens, in words; None: it can."""
    ids = torch.arange(length, device=model.device)[None] % vocabulary_size(model)
    try:
        model(input_ids=ids, use_cache=False)
    except ModelError:
        raise
    except Exception as error:  # a model's own code fails in its own way
        return f"{type(error).__name__}: {first_line(error)}"
    return None
