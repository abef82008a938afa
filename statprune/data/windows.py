"""Token windows of a source, by its name."""

from typing import TYPE_CHECKING

import torch

from statprune.data.sources import get_source
from statprune.data.token_windows import TextOrigin, Tokenize, Windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TextOrigin", "Windows", "calibration_windows", "evaluation_windows"]


def calibration_windows(
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    samples: int = 128,
    seq_len: int = 2048,
    seed: int = 0,
    path: str | None = None,
    field: str | None = None,
) -> Windows:
    """Random windows of a source's calibration part.

    Args:
        tokenizer: the model's.
        source: bundled, text, wikitext2, c4, ptb, or a plugin's.
        samples: number of windows.
        seq_len: tokens of a window.
        seed: of the generator that draws them.
        path: for ``text`` the file, folder or pattern; for wikitext2, c4 and ptb an optional copy of the hub's folder.
        field: the column of tables that ``text`` reads; None: ``text``, or else ``messages`` or ``conversations``.

    Raises:
        DataError: the text can't be read, or is too short for one window.
        ChoiceError: there is no such source.

    Example:
        >>> from statprune import calibration_windows, load_model
        >>> windows = calibration_windows(load_model().tokenizer, "bundled", samples=8, seq_len=64)
        >>> windows.ids.shape, windows.origin.source
        (torch.Size([8, 64]), 'bundled')
    """
    generator = torch.Generator().manual_seed(seed)
    tokenize = Tokenize(tokenizer, source)
    own = get_source(source, field)
    return tokenize.counted(own.calibration_windows(tokenize, samples, seq_len, generator, path))


def evaluation_windows(
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    seq_len: int = 2048,
    max_windows: int | None = None,
    path: str | None = None,
    field: str | None = None,
) -> Windows:
    """Consecutive windows of a source's evaluation part; the remainder is dropped.

    Args:
        tokenizer: the model's.
        source: bundled, text, wikitext2, c4, ptb, or a plugin's.
        seq_len: tokens of a window.
        max_windows: at most so many, the first ones; None: all.
        path: as for ``calibration_windows``.
        field: as for ``calibration_windows``.

    Raises:
        DataError: the text can't be read, or is too short for one window.
        ChoiceError: there is no such source.

    Example:
        >>> from statprune import evaluation_windows, load_model
        >>> evaluation_windows(load_model().tokenizer, "bundled", seq_len=64, max_windows=2).ids.shape
        torch.Size([2, 64])
    """
    tokenize = Tokenize(tokenizer, source)
    return tokenize.counted(get_source(source, field).evaluation_windows(tokenize, seq_len, max_windows, path))
