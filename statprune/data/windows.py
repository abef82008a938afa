"""Token windows: random ones for calibration, consecutive ones for evaluation."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statprune.data.sources import documents, read_text
from statprune.errors import DataError

C4_DRAWS = 10_000  # documents drawn for one window before giving up


@dataclass(frozen=True)
class Windows:
    """Token windows and where they come from.

    Attributes:
        ids: token ids, (windows, seq_len).
        info: what a record needs: source, text hash, number of tokens, BOS behaviour, starts.
    """

    ids: Tensor
    info: dict[str, Any]


def calibration_windows(
    tokenizer: Any,
    source: str = "bundled",
    samples: int = 128,
    seq_len: int = 2048,
    seed: int = 0,
    path: str | None = None,
) -> Windows:
    """Random windows of ``seq_len`` tokens from a source tokenised whole (C4: one window per drawn document).

    Raises:
        DataError: the text is too short for one window.
    """
    generator = torch.Generator().manual_seed(seed)
    if source == "c4":
        return _c4_windows(tokenizer, samples, seq_len, generator, path)
    ids, info = _tokens(tokenizer, source, "calibration", path)
    if len(ids) < seq_len + 2:
        raise DataError(
            f"the calibration text has {len(ids)} tokens, too few for windows of calibration.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    starts = torch.randint(0, len(ids) - seq_len - 1, (samples,), generator=generator)
    windows = torch.stack([ids[start : start + seq_len] for start in starts.tolist()])
    return Windows(windows, info | {"starts": starts.tolist()})


def evaluation_windows(
    tokenizer: Any,
    source: str = "bundled",
    seq_len: int = 2048,
    max_windows: int | None = None,
    path: str | None = None,
) -> Windows:
    """Consecutive windows of ``seq_len`` tokens, the remainder dropped.

    Raises:
        DataError: the text is too short for one window.
    """
    ids, info = _tokens(tokenizer, source, "evaluation", path)
    count = len(ids) // seq_len
    if count == 0:
        raise DataError(
            f"the evaluation text has {len(ids)} tokens, too few for one window of evaluation.seq_len={seq_len}; "
            "give a longer text or a smaller seq_len"
        )
    windows = ids[: count * seq_len].view(count, seq_len)[:max_windows]
    return Windows(windows, info)


def _tokens(tokenizer: Any, source: str, part: str, path: str | None) -> tuple[Tensor, dict[str, Any]]:
    text = read_text(source, part, path)
    ids = tokenizer(text, verbose=False)["input_ids"]
    info = {
        "source": source,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "text_tokens": len(ids),
        "begins_with_bos": bool(ids) and ids[0] == tokenizer.bos_token_id,
    }
    return torch.tensor(ids, dtype=torch.long), info


def _c4_windows(tokenizer: Any, samples: int, seq_len: int, generator: torch.Generator, path: str | None) -> Windows:
    texts = documents("c4", "calibration", path)
    digest = hashlib.sha256()
    windows, starts, with_bos = [], [], True
    for _ in range(samples):
        for _ in range(C4_DRAWS):
            number = int(torch.randint(0, len(texts), (1,), generator=generator))
            ids = tokenizer(texts[number], verbose=False)["input_ids"]
            if len(ids) > seq_len + 1:
                break
        else:
            raise DataError(
                f"none of {C4_DRAWS} drawn C4 documents is longer than calibration.seq_len={seq_len} tokens; lower it"
            )
        start = int(torch.randint(0, len(ids) - seq_len - 1, (1,), generator=generator))
        digest.update(texts[number].encode())
        with_bos &= ids[0] == tokenizer.bos_token_id
        windows.append(torch.tensor(ids[start : start + seq_len]))
        starts.append([number, start])
    info = {"source": "c4", "sha256": digest.hexdigest(), "begins_with_bos": with_bos, "starts": starts}
    return Windows(torch.stack(windows), info)
