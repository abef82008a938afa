"""Token windows of a source, by its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from statprune.data.sources import get_source
from statprune.data.token_windows import Bos, TextOrigin, Tokenize, Windows
from statprune.errors import ChoiceError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Bos", "TextOrigin", "Windows", "calibration_windows", "evaluation_windows"]


def calibration_windows(  # noqa: PLR0913  # part of the front door: what a source is asked, by name
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    samples: int = 128,
    seq_len: int = 2048,
    seed: int = 0,
    path: str | None = None,
    field: str | None = None,
    bos: Bos | str = Bos.auto,
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
        bos: which windows begin with BOS: auto (as the tokenizer makes the text), always or never; where all do, each
            has one token less of the text.

    Raises:
        DataError: the text can't be read, or is too short for one window.
        ChoiceError: there is no such source, or no such choice of BOS.

    Examples:
        >>> from statprune import calibration_windows, load_model
        >>> windows = calibration_windows(load_model().tokenizer, "bundled", samples=8, seq_len=64)
        >>> windows.ids.shape, windows.origin.source
        (torch.Size([8, 64]), 'bundled')
    """
    generator = torch.Generator().manual_seed(seed)
    tokenize = Tokenize(tokenizer, source, _bos(bos))
    own, length = get_source(source, field), tokenize.cut_length(seq_len)
    with _told_of(tokenize):
        windows = own.calibration_windows(tokenize, samples, length, generator, path)
    return tokenize.completed(windows)


def evaluation_windows(
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    seq_len: int = 2048,
    max_windows: int | None = None,
    path: str | None = None,
    field: str | None = None,
    bos: Bos | str = Bos.auto,
) -> Windows:
    """Consecutive windows of a source's evaluation part; the remainder is dropped.

    Args:
        tokenizer: the model's.
        source: bundled, text, wikitext2, c4, ptb, or a plugin's.
        seq_len: tokens of a window.
        max_windows: at most so many, the first ones; None: all.
        path: as for ``calibration_windows``.
        field: as for ``calibration_windows``.
        bos: as for ``calibration_windows``.

    Raises:
        DataError: the text can't be read, or is too short for one window.
        ChoiceError: there is no such source, or no such choice of BOS.

    Examples:
        >>> from statprune import evaluation_windows, load_model
        >>> evaluation_windows(load_model().tokenizer, "bundled", seq_len=64, max_windows=2).ids.shape
        torch.Size([2, 64])
    """
    tokenize = Tokenize(tokenizer, source, _bos(bos))
    own, length = get_source(source, field), tokenize.cut_length(seq_len)
    with _told_of(tokenize):
        windows = own.evaluation_windows(tokenize, length, max_windows, path)
    return tokenize.completed(windows)


def _bos(value: Bos | str) -> Bos:
    try:
        return Bos(value)
    except ValueError as error:
        raise ChoiceError(f"bos={value} is unknown; choose auto, always or never") from error


@contextmanager
def _told_of(tokenize: Tokenize) -> Iterator[None]:
    """Have sentences on lengths say that BOS takes a token of each window, where it does."""
    try:
        yield
    except DataError as error:
        if tokenize.bos is Bos.always:
            raise DataError(f"{error} (a token of the text less in each window, which begins with BOS)") from error
        raise
