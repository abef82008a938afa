"""What prompts become for a model: the tokenizer that they are asked with, and the tokens of every request."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from statprune.errors import ModelError
from statprune.evaluation.tasks import TaskOptions, TaskSuite

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerBase

TOGETHER = 2048  # texts that are tokenised in one call


@dataclass(frozen=True)
class PromptTokens:
    """What the tokens of all requests have in common.

    Attributes:
        with_bos: requests whose tokens begin with the tokenizer's BOS token, before any is cut off.
        smallest: token id; 0 where there is none.
        largest: token id; 0 where there is none.
    """

    with_bos: int
    smallest: int
    largest: int


def check_tokenizer(suite: TaskSuite, tokenizer: "PreTrainedTokenizerBase", options: TaskOptions) -> None:
    """Raise ModelError where the tasks can't be asked as the options want it with this tokenizer."""
    if options.chat_template and not tokenizer.chat_template:
        raise ModelError(
            "evaluation.chat_template=true, but the model's tokenizer has no chat template; "
            "set evaluation.chat_template=false"
        )
    writing = sorted(task.task_name for task in suite.tasks if task.OUTPUT_TYPE == "generate_until")
    if writing and tokenizer.eos_token is None:
        raise ModelError(
            f"the tasks {', '.join(writing)} let the model write, and its tokenizer has no end-of-sequence token; "
            "leave them out of evaluation.tasks, or give the tokenizer one"
        )
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ModelError(
            "the model's tokenizer has neither a BOS nor an EOS token, one of which lm-eval needs for its tasks; name "
            "one as bos_token in its tokenizer_config.json, or leave evaluation.tasks out"
        )
    for_prompts(tokenizer, options.add_bos_token)


def for_prompts(tokenizer: "PreTrainedTokenizerBase", add_bos_token: bool | None) -> "PreTrainedTokenizerBase":
    """A copy of a tokenizer that begins prompts as it is asked to, as lm-eval opens one with ``add_bos_token``.

    Args:
        tokenizer: the model's.
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.

    Raises:
        ModelError: the tokenizer does not do what it is asked to.
    """
    own = copy.deepcopy(tokenizer)
    if add_bos_token is None:
        return own
    asked = f"evaluation.add_bos_token={str(add_bos_token).lower()}"
    if own.bos_token_id is None:
        raise ModelError(f"{asked} has no effect, since the model's tokenizer has no BOS token; leave it out")
    if hasattr(own, "add_bos_token"):
        own.add_bos_token = add_bos_token  # makes its post-processor anew
    begins = own.encode("A", add_special_tokens=add_bos_token)[:1] == [own.bos_token_id]
    if begins is not add_bos_token:
        always = "never" if add_bos_token else "always"
        raise ModelError(
            f"{asked} has no effect, since the model's tokenizer {always} begins a text with BOS; leave it out"
        )
    return own


def prompts_of(results: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The arguments of every request in lm-eval's results, each once: filters repeat their documents."""
    by_document = {
        (task, sample["doc_id"]): sample["arguments"]
        for task, samples in results["samples"].items()
        for sample in samples
    }
    return [tuple(arguments) for requests in by_document.values() for arguments in requests]


def prompt_tokens(harness: "HFLM", prompts: Iterable[Sequence[Any]]) -> PromptTokens:
    """Tokenise every request as the harness will.

    Args:
        harness: lm-eval's model class.
        prompts: of ``prompts_of``.
    """
    bos = harness.tokenizer.bos_token_id
    with_bos, smallest, largest = 0, 0, 0
    for ids in _encoded(harness, [_Request.of(prompt, harness) for prompt in prompts]):
        with_bos += bos is not None and ids[:1] == [bos]
        smallest, largest = min([smallest, *ids]), max([largest, *ids])
    return PromptTokens(with_bos, smallest, largest)


@dataclass(frozen=True)
class _Request:
    """A request's text, and the special tokens that go with it.

    Attributes:
        text: prompt and answer.
        keywords: of the tokenizer.
        prefix: tokens in front.
    """

    text: str
    keywords: tuple[tuple[str, bool], ...]
    prefix: tuple[int, ...] = ()

    @classmethod
    def of(cls, prompt: Sequence[Any], harness: "HFLM") -> "_Request":
        texts = [argument for argument in prompt if isinstance(argument, str)]
        if len(texts) == 2 and not texts[0]:  # nothing to go on from: lm-eval puts a token there
            return cls(texts[1], (("add_special_tokens", False),), (harness.prefix_token_id,))
        prefix = (harness.prefix_token_id,) if len(prompt) == 1 else ()  # of a text that is asked for as a whole
        text = "".join(texts)
        adds: bool | None = harness.add_bos_token
        if text.startswith(harness.tokenizer.decode(harness.prefix_token_id)):
            adds = False
        return cls(text, () if adds is None else (("add_special_tokens", adds),), prefix)


def _encoded(harness: "HFLM", requests: Sequence[_Request]) -> Iterator[list[int]]:
    """Token ids of each request; several are tokenised together, which is faster."""
    for keywords in dict.fromkeys(request.keywords for request in requests):
        alike = [request for request in requests if request.keywords == keywords]
        for start in range(0, len(alike), TOGETHER):
            part = alike[start : start + TOGETHER]
            encoded = harness.tokenizer([request.text for request in part], **dict(keywords), verbose=False)
            for request, ids in zip(part, encoded["input_ids"], strict=True):
                yield [*request.prefix, *ids]
