"""Tokenise each long text once in a process: hundreds of tests read the bundled text with the same tiny tokenizer."""

from functools import wraps
from typing import Any

import pytest
from transformers import BatchEncoding, PreTrainedTokenizerFast

LONG = 20_000  # characters


def tokenise_long_texts_once(patch: pytest.MonkeyPatch) -> None:
    """Have fast tokenizers remember what a long text became; what they return and raise is the same."""
    encode = PreTrainedTokenizerFast._encode_plus
    known: dict[tuple[object, ...], dict[str, list[int]]] = {}

    @wraps(encode)
    def remembered(self: PreTrainedTokenizerFast, text: Any, *args: Any, **options: Any) -> BatchEncoding:
        if not isinstance(text, str) or len(text) < LONG or args or options.get("return_tensors") is not None:
            return encode(self, text, *args, **options)
        key = (self._tokenizer.to_str(), self.split_special_tokens, text, repr(sorted(options.items())))
        if key not in known:
            known[key] = dict(encode(self, text, **options))
        return BatchEncoding({name: list(values) for name, values in known[key].items()})

    patch.setattr(PreTrainedTokenizerFast, "_encode_plus", remembered)
