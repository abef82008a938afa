"""lm-eval's own model class over a model in memory; its requests are seen, counted and shared between processes."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import lm_eval.api.task
import lm_eval.evaluator
import tqdm
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from statprune.evaluation.prompts import for_prompts
from statprune.model.loading import positions
from statprune.system.console import SilentBar
from statprune.system.distributed import gathered, rank, size

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # what matters of its messages is in the record


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off what no setting of lm-eval's reaches: its other bars, and seconds spent on describing the machine.

    The record describes the machine itself. Bootstrapping is left to this process: lm-eval would fork it, and children
    of a process with threads can wait forever for a lock that one of them held. Its samples are the same.
    """
    no_description = patch.multiple(
        lm_eval.evaluator, get_git_commit_hash=lambda: None, add_env_info=lambda results: None
    )
    no_fork = patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"})
    no_bars = patch.object(lm_eval.api.task, "tqdm", SilentBar), patch.object(tqdm, "tqdm", SilentBar)
    with no_bars[0], no_bars[1], no_description, no_fork:
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
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int,
        add_bos_token: bool | None = None,
        advance: Callable[[int], None] | None = None,
    ):
        super().__init__(
            pretrained=model,
            tokenizer=for_prompts(tokenizer, add_bos_token),
            backend="causal",
            batch_size=batch_size,
            add_bos_token=add_bos_token,
        )
        limit = positions(model)  # under names, too, that lm-eval does not know
        if limit is not None and self.max_length > limit:
            self._max_length = limit
        self._rank, self._world_size = rank(), size()
        self.truncated = 0
        self.set_cache_hook(_Counter(advance))

    def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """HFLM's, without its bar."""
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[float]:
        """HFLM's, without its bar."""
        answers: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return answers

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """HFLM's, without its bar."""
        answers: list[str] = super().generate_until(requests, disable_tqdm=True)
        return answers

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        longest = self.max_length + 1  # the last token is predicted, and not read
        self.truncated += sum(len(context) + len(continuation) > longest for _, context, continuation in requests)
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, override_bs=override_bs
        )
        return answers

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """HFLM's; counts the strings that are truncated."""
        limit = kwargs.get("left_truncate_len")
        if limit:
            self.truncated += sum(len(self.tok_encode(string)) > limit for string in strings)
        encoded: tuple[Tensor, Tensor] = super().tok_batch_encode(strings, *args, **kwargs)
        return encoded

    # with a model in memory HFLM does not know of other processes

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, by rank."""
        return tensor.new_tensor(gathered(tensor.tolist())) if self.world_size > 1 else tensor

    def gather_object(self, obj: object, dst: int = 0) -> list[object] | None:
        """Every process's object, by rank, in process ``dst``."""
        values = gathered(obj)
        return values if self.rank == dst else None

    def barrier(self) -> None:
        """Wait for the other processes."""
        gathered(None)


class Rehearsal(Harness):
    """Answers without asking the model: what would fail in prompts or metrics fails at once.

    Attributes:
        requests: (kind, arguments) of everything asked.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int,
        add_bos_token: bool | None = None,
    ):
        super().__init__(model, tokenizer, batch_size, add_bos_token)
        self.requests: list[tuple[str, tuple[Any, ...]]] = []

    def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The same answer to every request."""
        self._take_note("loglikelihood", requests)
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[float]:
        """The same answer to every request."""
        self._take_note("loglikelihood_rolling", requests)
        return [-1.0] * len(requests)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """An empty answer to every request."""
        self._take_note("generate_until", requests)
        return [""] * len(requests)

    def _take_note(self, kind: str, requests: "list[Instance]") -> None:
        self.requests += [(kind, request.args) for request in requests]

    def longest(self) -> int:
        """Tokens of the longest prompt with its continuation, or with room for what is generated."""
        by_letters = sorted(self.requests, key=lambda request: -sum(map(len, _texts(request[1]))))
        longest = 1
        for kind, arguments in by_letters[:16]:  # more letters are seldom fewer tokens
            tokens = len(self.tok_encode("".join(_texts(arguments))))
            longest = max(longest, tokens + (self.max_gen_toks if kind == "generate_until" else 0))
        return min(longest, self.max_length)


def _texts(arguments: tuple[Any, ...]) -> list[str]:
    return [argument for argument in arguments if isinstance(argument, str)]


class _Counter:
    """Stands in for lm-eval's cache of answers: it is told of each answer."""

    def __init__(self, advance: Callable[[int], None] | None):
        self._advance, self._done = advance, 0

    def add_partial(self, attr: str, req: object, res: object) -> None:
        self._done += 1
        if self._advance is not None:
            self._advance(self._done)
