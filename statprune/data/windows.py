"""How text is cut into token windows: random ones for calibration, consecutive ones for evaluation."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.data.sources import documents, read_text
from statprune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

C4_DRAWS = 10_000  # documents drawn for one window before giving up


@dataclass(frozen=True)
class TextOrigin:
    """Where token windows come from.

    Attributes:
        source: bundled, text, wikitext2 or c4.
        sha256: of the text; of the drawn documents for C4's calibration.
        begins_with_bos: whether the tokenizer puts its BOS token first.
        text_tokens: tokens of the whole text; None where it was not tokenised whole (C4's calibration).
        starts: token number at which each calibration window starts, or (document, token) for C4; None for evaluation.
    """

    source: str
    sha256: str
    begins_with_bos: bool
    text_tokens: int | None = None
    starts: list[int] | list[list[int]] | None = None


@dataclass(frozen=True)
class Windows:
    """Token windows and where they come from.

    Attributes:
        ids: token ids, (windows, seq_len).
        origin: for the record.
    """

    ids: Tensor
    origin: TextOrigin


def calibration_windows(
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    samples: int = 128,
    seq_len: int = 2048,
    seed: int = 0,
    path: str | None = None,
) -> Windows:
    """Random windows from a source that is tokenised whole (C4: one window per drawn document).

    Args:
        tokenizer: the model's.
        source: bundled, text, wikitext2 or c4.
        samples: number of windows.
        seq_len: tokens of a window.
        seed: of the generator that draws the starts.
        path: as ``sources.read_text`` takes it.

    Raises:
        DataError: the text is too short for one window.
    """
    generator = torch.Generator().manual_seed(seed)
    if source == "c4":
        return _c4_windows(tokenizer, samples, seq_len, generator, path)
    text = _tokenised(tokenizer, source, "calibration", path)
    ids = text.ids
    if len(ids) < seq_len + 2:
        raise DataError(
            f"the calibration text has {len(ids)} tokens, too few for windows of calibration.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    starts = torch.randint(0, len(ids) - seq_len - 1, (samples,), generator=generator).tolist()
    windows = torch.stack([ids[start : start + seq_len] for start in starts])
    return Windows(windows, replace(text.origin, starts=starts))


def evaluation_windows(
    tokenizer: "PreTrainedTokenizerBase",
    source: str = "bundled",
    seq_len: int = 2048,
    max_windows: int | None = None,
    path: str | None = None,
) -> Windows:
    """Consecutive windows of a source that is tokenised whole; the remainder is dropped.

    Args:
        tokenizer: the model's.
        source: bundled, text, wikitext2 or c4.
        seq_len: tokens of a window.
        max_windows: at most so many, the first ones; None: all.
        path: as ``sources.read_text`` takes it.

    Raises:
        DataError: the text is too short for one window.
    """
    text = _tokenised(tokenizer, source, "evaluation", path)
    count = len(text.ids) // seq_len
    if count == 0:
        raise DataError(
            f"the evaluation text has {len(text.ids)} tokens, too few for one window of evaluation.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    windows = text.ids[: count * seq_len].view(count, seq_len)[:max_windows]
    return Windows(windows, text.origin)


def _tokenised(tokenizer: "PreTrainedTokenizerBase", source: str, split: str, path: str | None) -> Windows:
    """The whole text as one row of ids, (tokens,)."""
    text = read_text(source, split, path)
    ids = _ids(tokenizer, text)
    begins_with_bos = bool(ids) and ids[0] == tokenizer.bos_token_id
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Windows(torch.tensor(ids, dtype=torch.long), TextOrigin(source, digest, begins_with_bos, len(ids)))


def _c4_windows(
    tokenizer: "PreTrainedTokenizerBase", samples: int, seq_len: int, generator: torch.Generator, path: str | None
) -> Windows:
    texts = documents("c4", "calibration", path)
    digest = hashlib.sha256()
    windows, starts, all_begin_with_bos = [], [], True
    for _ in range(samples):
        for _ in range(C4_DRAWS):
            number = int(torch.randint(0, len(texts), (1,), generator=generator))
            ids = _ids(tokenizer, texts[number])
            if len(ids) > seq_len + 1:
                break
        else:
            raise DataError(
                f"none of {C4_DRAWS} drawn C4 documents is longer than calibration.seq_len={seq_len} tokens; lower it"
            )
        start = int(torch.randint(0, len(ids) - seq_len - 1, (1,), generator=generator))
        digest.update(texts[number].encode())
        all_begin_with_bos &= ids[0] == tokenizer.bos_token_id
        windows.append(torch.tensor(ids[start : start + seq_len]))
        starts.append([number, start])
    return Windows(torch.stack(windows), TextOrigin("c4", digest.hexdigest(), all_begin_with_bos, starts=starts))


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    return ids
