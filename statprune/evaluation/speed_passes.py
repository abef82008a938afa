"""What is timed: a prompt's forward pass, greedy steps after it, and whether two forms of weights say the same."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from statprune.data.sources import EVALUATION, get_source
from statprune.data.token_windows import Tokenize
from statprune.errors import ModelError, first_line
from statprune.evaluation.speed_report import Agreement
from statprune.system.timing import time_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CACHES = ("past_key_values", "cache_params")  # what models call the state that they return and take
CHECKED_STEPS = 4  # of decoding, at most, whose logits are compared
SEED = 0  # of random prompts
TEXT = "bundled"  # the source whose evaluation part the prompts are cut from


@dataclass(frozen=True)
class Prompts:
    """Token ids that all forms are given.

    Attributes:
        ids: (prompts, tokens).
        source: what they are, in a few words.
    """

    ids: Tensor
    source: str


class Passes:
    """A model's prefill and decoding, with its own cache.

    Args:
        model: a causal language model in evaluation mode.
        device: that it is on.

    Attributes:
        logits: last, or all where the model computes the logits of every prompt token.
    """

    def __init__(self, model: "PreTrainedModel", device: torch.device):
        self._model, self._device = model, device
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._only_last: dict[str, int] = {"logits_to_keep": 1} if keeps else {}
        self.logits = "last" if keeps else "all"

    def forward(self, ids: Tensor, cache: Mapping[str, object] | None) -> tuple[Tensor, Mapping[str, object]]:
        """Logits of the last position, (batch, vocabulary), and the cache for the next call.

        Args:
            ids: (batch, tokens).
            cache: what the call before returned; None for the first.

        Raises:
            ModelError: the call before returned no cache.
        """
        if cache is not None and not cache:
            raise ModelError(
                f"{type(self._model).__name__} returns no cache, without which it can't decode; give --new-tokens 0"
            )
        output: Any = self._model(input_ids=ids, use_cache=True, **self._only_last, **(cache or {}))
        found = {name: getattr(output, name, None) for name in CACHES}
        return output.logits[:, -1], {name: own for name, own in found.items() if own is not None}

    def decode(self, logits: Tensor, cache: Mapping[str, object], steps: int) -> None:
        """Greedy steps: each feeds the most likely token of the logits before it; no end of a text stops them."""
        for _ in range(steps):
            logits, cache = self.forward(logits.argmax(-1, keepdim=True), cache)

    @torch.inference_mode()
    def timed(self, prompts: Tensor, steps: int) -> tuple[float, float]:
        """Seconds of the prefill, and of so many greedy steps after it; the device has done its work at both ends.

        Args:
            prompts: (batch, tokens), on the device.
            steps: greedy ones.
        """
        start = time_on(self._device)
        logits, cache = self.forward(prompts, None)
        middle = time_on(self._device)
        self.decode(logits, cache, steps)
        return middle - start, time_on(self._device) - middle

    @torch.inference_mode()
    def checked_logits(self, ids: Tensor, steps: int) -> Tensor:
        """Logits after a prompt and after each of some steps with given tokens, (steps + 1, batch, vocabulary).

        Args:
            ids: (batch, tokens + steps), on the device.
            steps: how many of the last tokens are fed one by one.
        """
        length = ids.shape[1] - steps
        logits, cache = self.forward(ids[:, :length], None)
        found = [logits.float().cpu()]
        for number in range(length, ids.shape[1]):
            logits, cache = self.forward(ids[:, number : number + 1], cache)
            found.append(logits.float().cpu())
        return torch.stack(found)


def agreement(pairs: Iterable[tuple[Tensor, Tensor]], tolerance: float) -> Agreement:
    """Compare logits with those of the dense weights.

    Args:
        pairs: logits and the dense ones of the same positions, (…, vocabulary) each.
        tolerance: largest relative difference that counts as the same.
    """
    positions = same = 0
    largest = relative = 0.0
    is_finite = True
    for found, dense in pairs:
        difference = (found - dense).double()
        ratios = difference.norm(dim=-1) / dense.double().norm(dim=-1)
        # unlike Python's max, PyTorch's hands NaN on
        relative = float(torch.cat([ratios.reshape(-1), torch.tensor([relative], device="cpu")]).max())
        largest = float(torch.cat([difference.abs().reshape(-1), torch.tensor([largest], device="cpu")]).max())
        same += int((found.argmax(-1) == dense.argmax(-1)).sum())
        positions += ratios.numel()
        is_finite = is_finite and bool(dense.isfinite().all())
    return Agreement(positions, largest, relative, same / positions, tolerance, is_finite)


def make_prompts(tokenizer: "PreTrainedTokenizerBase | None", count: int, length: int, vocabulary: int) -> Prompts:
    """Prompts cut from the bundled evaluation text one after another; random ids where the tokenizer can't make them.

    Args:
        tokenizer: the model's own.
        count: of prompts; a text that is too short for them is repeated.
        length: tokens of each.
        vocabulary: how many tokens the models have embeddings for.
    """
    ids, reason = _text_ids(tokenizer, vocabulary)
    if ids is None:
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.randint(vocabulary, (count, length), generator=generator, device="cpu")
        return Prompts(drawn, f"random token ids of seed {SEED}, because {reason}")
    repeated = ids.repeat(-(-count * length // len(ids)))[: count * length]
    return Prompts(repeated.view(count, length), f"the {TEXT} evaluation text")


def _text_ids(tokenizer: "PreTrainedTokenizerBase | None", vocabulary: int) -> tuple[Tensor | None, str]:
    """The text's tokens, (tokens,), or None and the reason."""
    if tokenizer is None:
        return None, "there is no tokenizer"
    read: Callable[..., Any] = get_source(TEXT).tokens
    try:
        ids: Tensor = read(Tokenize(tokenizer, TEXT), EVALUATION, None).ids.reshape(-1)
    except Exception as error:  # tokenizers fail in many ways
        return None, f"the tokenizer fails ({first_line(error)})"
    if not len(ids):
        return None, "the tokenizer makes nothing of the text"
    if int(ids.max()) >= vocabulary:
        return None, f"the tokenizer has tokens beyond the model's {vocabulary}"
    return ids, ""
