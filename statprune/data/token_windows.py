"""Token windows, where they come from, and how a tokenised text is cut into them."""

import hashlib
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from statprune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Bos(Enum):
    """Which windows begin with BOS; auto: what the tokenizer makes of the whole text, whose first window may."""

    auto = "auto"
    always = "always"
    never = "never"


@dataclass(frozen=True)
class TextOrigin:
    """Where token windows come from.

    Attributes:
        source: name of the source.
        sha256: hash of the text; of the drawn documents for C4's calibration.
        windows_with_bos: how many windows' first token is the tokenizer's BOS token, 0 where it has none; None where
            nothing was cut, or where a record of an older version does not tell [windows].
        text_tokens: length of the whole text; None where it was not tokenised whole (C4's calibration) [tokens].
        starts: token number at which each calibration window starts, or (document, token) for C4; None for evaluation.
        skipped_rows: rows without text (null, or nothing but blanks in a table of the user's) that are not in the text
            [rows].
    """

    source: str
    sha256: str
    windows_with_bos: int | None = None
    text_tokens: int | None = None
    starts: list[int] | list[list[int]] | None = None
    skipped_rows: int = 0


@dataclass(frozen=True)
class Windows:
    """Token windows and where they come from.

    Attributes:
        ids: token ids, (windows, seq_len).
        origin: for the record.
    """

    ids: Tensor
    origin: TextOrigin


@dataclass(frozen=True)
class Tokenize:
    """A text to its tokens, with the special tokens that the tokenizer adds by itself.

    Attributes:
        tokenizer: the model's.
        source: name of the source whose text it is.
        bos: which windows begin with BOS.
    """

    tokenizer: "PreTrainedTokenizerBase"
    source: str
    bos: Bos = Bos.auto

    def __call__(self, text: str) -> list[int]:
        """The token ids of a text; without its BOS where all windows or none have one."""
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return self._without_bos(ids)

    def cut_length(self, seq_len: int) -> int:
        """How many tokens of the text are in a window of ``seq_len``: one less where each begins with BOS."""
        return seq_len - 1 if self.bos is Bos.always else seq_len

    def completed(self, windows: Windows) -> Windows:
        """The windows with BOS before each where it is asked for, and counted.

        Raises:
            DataError: the tokenizer has no BOS.
        """
        if self.bos is not Bos.always:
            return self.counted(windows)
        bos: int | None = self.tokenizer.bos_token_id
        if bos is None:
            raise DataError(
                f"bos=always can't be followed for {self.source}: the tokenizer has no BOS token; give auto"
            )
        first = torch.full_like(windows.ids[:, :1], bos)
        return self.counted(replace(windows, ids=torch.cat([first, windows.ids], dim=1)))

    def _without_bos(self, ids: list[int]) -> list[int]:
        is_first = bool(ids) and ids[0] == self.tokenizer.bos_token_id
        return ids[1:] if self.bos is not Bos.auto and is_first else ids

    def whole(self, text: str, skipped_rows: int = 0, adds_special_tokens: bool = True) -> Windows:
        """The whole text as one row of ids, (tokens,).

        Args:
            text: to cut windows from.
            skipped_rows: rows without text that are not in it.
            adds_special_tokens: whether the tokenizer adds those that it adds by itself; not where a chat template
                has written them.
        """
        ids = self(text) if adds_special_tokens else self._plain(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        origin = TextOrigin(self.source, digest, text_tokens=len(ids), skipped_rows=skipped_rows)
        return Windows(torch.tensor(ids, dtype=torch.long, device="cpu"), origin)

    def counted(self, windows: Windows) -> Windows:
        """The windows, and in their origin how many of them begin with BOS."""
        bos: int | None = self.tokenizer.bos_token_id
        count = 0 if bos is None else int((windows.ids[:, 0] == bos).sum())
        return replace(windows, origin=replace(windows.origin, windows_with_bos=count))

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, verbose=False, add_special_tokens=False)["input_ids"]
        return self._without_bos(ids)


def random_windows(text: Windows, samples: int, seq_len: int, generator: Generator) -> Windows:
    """Windows at random places of a tokenised text.

    Args:
        text: from ``Tokenize.whole``.
        samples: number of windows.
        seq_len: tokens of a window.
        generator: draws the starts.

    Raises:
        DataError: the text is too short for one window.
    """
    ids = text.ids
    if len(ids) < seq_len + 2:
        raise DataError(
            f"the calibration text has {len(ids)} tokens, too few for windows of calibration.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    starts = torch.randint(0, len(ids) - seq_len - 1, (samples,), generator=generator, device="cpu").tolist()
    windows = torch.stack([ids[start : start + seq_len] for start in starts])
    return Windows(windows, replace(text.origin, starts=starts))


def consecutive_windows(text: Windows, seq_len: int, max_windows: int | None) -> Windows:
    """Consecutive windows of a tokenised text; the remainder is dropped.

    Args:
        text: from ``Tokenize.whole``.
        seq_len: tokens of a window.
        max_windows: at most so many, the first ones; None: all.

    Raises:
        DataError: the text is too short for one window.
    """
    count = len(text.ids) // seq_len
    if count == 0:
        raise DataError(
            f"the evaluation text has {len(text.ids)} tokens, too few for one window of evaluation.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    return Windows(text.ids[: count * seq_len].view(count, seq_len)[:max_windows], text.origin)
