"""lm-eval's own model class over a model in memory; how an evaluation goes is seen, counted and shared here."""

import copy
import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import lm_eval.api.task
import lm_eval.evaluator
import tqdm
from lm_eval.models.huggingface import HFLM

from statprune.system.distributed import gathered, rank, size

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # what matters of its messages is in the record


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off what no setting of lm-eval's reaches: its other bars, and seconds spent on describing the machine.

    The record describes the machine itself. Bootstrapping is left to this process: lm-eval would fork it, and children
    of a process with threads can wait forever for a lock that one of them held. Its samples are the same.
    """
    bar = functools.partial(tqdm.tqdm, disable=True)
    about = patch.multiple(lm_eval.evaluator, get_git_commit_hash=lambda: None, add_env_info=lambda results: None)
    alone = patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"})
    with patch.object(lm_eval.api.task, "tqdm", bar), patch.object(tqdm, "tqdm", bar), about, alone:
        yield


class Harness(HFLM):
    """HFLM with our progress; several processes share the documents.

    Args:
        model: a causal language model.
        tokenizer: its own; the one used is a copy, since HFLM gives it a padding token.
        batch_size: requests per forward.
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.
        advance: called with the number of requests answered.

    Attributes:
        truncated: requests that were longer than the model's context and lost their beginning.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int,
        add_bos_token: bool | None = None,
        advance: Callable[[int], None] | None = None,
    ):
        super().__init__(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            batch_size=batch_size,
            add_bos_token=add_bos_token,
        )
        self._rank, self._world_size = rank(), size()
        self.truncated = 0
        self.set_cache_hook(_Counter(advance))

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        longest = self.max_length + 1  # the last token is predicted, and not read
        self.truncated += sum(len(context) + len(continuation) > longest for _, context, continuation in requests)
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> Any:
        limit = kwargs.get("left_truncate_len")
        if limit:
            self.truncated += sum(len(self.tok_encode(string)) > limit for string in strings)
        return super().tok_batch_encode(strings, *args, **kwargs)

    # with a model in memory HFLM knows of no other process
    def all_gather(self, tensor: Any) -> Any:
        return tensor.new_tensor(gathered(tensor.tolist())) if self.world_size > 1 else tensor

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        values = gathered(obj)
        return values if self.rank == dst else None

    def barrier(self) -> None:
        gathered(None)


class Rehearsal(Harness):
    """Answers without asking the model: what would fail in prompts or metrics fails at once.

    Attributes:
        requests: (kind, arguments) of everything asked.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.requests: list[tuple[str, tuple[Any, ...]]] = []

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return self._answer("loglikelihood", requests, (-1.0, False))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return self._answer("loglikelihood_rolling", requests, -1.0)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return self._answer("generate_until", requests, "")

    def _answer(self, kind: str, requests: Any, answer: Any) -> list[Any]:
        self.requests += [(kind, request.args) for request in requests]
        return [answer] * len(requests)

    def longest(self) -> int:
        """Tokens of the longest prompt with its continuation, or with room for what is generated."""
        texts = [(sum(len(part) for part in args if isinstance(part, str)), kind, args) for kind, args in self.requests]
        most = sorted(texts, key=lambda text: -text[0])[:16]  # more letters are seldom fewer tokens
        found = 1
        for _, kind, args in most:
            tokens = len(self.tok_encode("".join(part for part in args if isinstance(part, str))))
            found = max(found, tokens + (self.max_gen_toks if kind == "generate_until" else 0))
        return min(found, self.max_length)


class _Counter:
    """Stands where lm-eval's cache of answers would: it is told of each answer."""

    def __init__(self, advance: Callable[[int], None] | None):
        self._advance, self._done = advance, 0

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._done += 1
        if self._advance is not None:
            self._advance(self._done)
