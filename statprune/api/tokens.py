"""Windows of tokens from whatever a caller gives as them, checked against the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from statprune.api.arguments import opened_model
from statprune.data.token_windows import TextOrigin, Tokenize, Windows, consecutive_windows
from statprune.data.windows import calibration_windows
from statprune.errors import DataError, ModelError
from statprune.model.loading import LoadedModel, check_length, check_tokens, positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    AnyModel: TypeAlias = LoadedModel | PreTrainedModel

SAMPLES, SEQ_LEN = 24, 512  # of the bundled calibration, as the command has them

GivenWindows: TypeAlias = Windows | Tensor | Sequence[str]


@dataclass(frozen=True)
class TokenWindows:
    """Windows that fit a model.

    Attributes:
        ids: token ids, (windows, seq_len).
        origin: where they come from; None where only their tokens are known.
    """

    ids: Tensor
    origin: TextOrigin | None


def tokenizer_of(
    model: "AnyModel", tokenizer: "PreTrainedTokenizerBase | None", purpose: str
) -> "PreTrainedTokenizerBase":
    """The tokenizer that was given, or the model's own.

    Args:
        model: the caller's.
        tokenizer: the caller's, or None.
        purpose: what it is needed for, for the sentence: ``to read texts``.

    Raises:
        ModelError: there is none, or what was given is none.
    """
    from transformers import PreTrainedTokenizerBase

    if tokenizer is None and isinstance(model, LoadedModel):
        return model.tokenizer
    if tokenizer is None:
        raise ModelError(
            f"a tokenizer is needed {purpose}; give tokenizer=, or what load_model() returns in place of its model"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(f"tokenizer= is a tokenizer of transformers, not of the type {type(tokenizer).__name__}")
    return tokenizer


def usual_length(model: "PreTrainedModel") -> int:
    """Tokens of a window where the caller does not say: 512, or as many as the model has positions."""
    return min(SEQ_LEN, positions(model) or SEQ_LEN)


def read_windows(
    model: "AnyModel", windows: GivenWindows | None, tokenizer: "PreTrainedTokenizerBase | None", seed: int
) -> TokenWindows:
    """The windows that the caller gave, or the bundled text's.

    Args:
        model: the caller's.
        windows: ``Windows``, token ids (windows, seq_len), texts, or None.
        tokenizer: the caller's, or None.
        seed: of the bundled windows.

    Raises:
        DataError: they are no windows, or too short.
        ModelError: they do not fit the model, or a tokenizer is missing.
    """
    network = opened_model(model, "read_windows")
    if windows is None:
        own = tokenizer_of(model, tokenizer, "to read the bundled calibration text")
        drawn = calibration_windows(own, "bundled", SAMPLES, usual_length(network), seed)
        given = TokenWindows(drawn.ids, drawn.origin)
    elif isinstance(windows, Windows):
        given = TokenWindows(windows.ids, windows.origin)
    elif isinstance(windows, Tensor):
        given = TokenWindows(windows, None)
    else:
        read = _windows_of_texts(network, windows, tokenizer_of(model, tokenizer, "to read texts"))
        given = TokenWindows(read.ids, read.origin)
    check_windows(network, given.ids)
    return given


def check_windows(model: "PreTrainedModel", ids: Tensor) -> None:
    """Check that token ids are windows for this model.

    Raises:
        DataError: they are no whole numbers in rows.
        ModelError: a window is longer than the model's positions, or a token is not in its vocabulary.
    """
    if ids.is_floating_point() or ids.is_complex() or str(ids.dtype) == "torch.bool":
        raise DataError(f"the windows hold {ids.dtype} values; give token ids, which are whole numbers")
    if ids.ndim != 2 or ids.numel() == 0:
        raise DataError(
            f"the windows have the shape {tuple(ids.shape)}; give token ids of shape (windows, seq_len), "
            "one row for each window"
        )
    if ids.shape[1] < 2:
        raise DataError("the windows have 1 token each, too few to predict one; give longer ones")
    check_length(model, ids.shape[1], f"seq_len={ids.shape[1]} of the windows")
    check_tokens(model, ids)


def _windows_of_texts(model: "PreTrainedModel", texts: object, tokenizer: "PreTrainedTokenizerBase") -> Windows:
    """Consecutive windows of the texts, joined by blank lines."""
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        what = "one text" if isinstance(texts, str) else f"of the type {type(texts).__name__}"
        raise DataError(
            f"the windows are {what}; give a list of texts, a tensor of token ids (windows, seq_len), "
            "or what calibration_windows() returns"
        )
    tokenize = Tokenize(tokenizer, "texts")
    whole = tokenize.whole("\n\n".join(texts))
    seq_len = min(usual_length(model), len(whole.ids))
    if seq_len < 2:
        raise DataError(f"the texts have {len(whole.ids)} tokens, too few for a window; give longer ones")
    return tokenize.counted(consecutive_windows(whole, seq_len, None))
