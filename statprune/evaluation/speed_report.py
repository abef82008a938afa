"""What is known of a model's speed in the forms of its weights, and the numbers that are told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

PREFILL, DECODE = "prefill", "decode"
DENSE = "dense"
AGAINST = "original"  # what the dense model of --against is called in tables


@dataclass(frozen=True)
class Spread:
    """A number of every round.

    Attributes:
        median: of the rounds.
        lowest: of the rounds.
        highest: of the rounds.
    """

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class SpeedPlan:
    """What is measured.

    Attributes:
        batch_sizes: sequences that go through the model together.
        prompt_tokens: of each prompt.
        new_tokens: greedy steps after it.
        rounds: how often each is timed.
        tolerance: relative difference of logits that counts as the same; None: as the dtype has it.
    """

    batch_sizes: tuple[int, ...] = (1, 4)
    prompt_tokens: int = 128
    new_tokens: int = 32
    rounds: int = 5
    tolerance: float | None = None

    def tokens(self, phase: str, batch_size: int) -> int:
        """How many tokens one round of a phase, prefill or decode, takes through the model."""
        return batch_size * (self.prompt_tokens if phase == PREFILL else self.new_tokens)


@dataclass(frozen=True)
class Agreement:
    """How far the logits of a form are from those of the same weights, dense.

    Attributes:
        positions: how many positions were compared.
        largest: largest absolute difference of a logit.
        relative: ‖logits − dense‖ / ‖dense‖ over the vocabulary, of the position where it is largest.
        top1: share of the positions at which both have the same most likely token.
        tolerance: largest relative difference that still counts as the same.
        is_dense_finite: whether the dense weights' logits are numbers, without which there is nothing to compare.
    """

    positions: int
    largest: float
    relative: float
    top1: float
    tolerance: float
    is_dense_finite: bool = True

    @property
    def is_same(self) -> bool:
        """Whether the form computes what the dense weights do; false where a logit is not finite."""
        return self.relative <= self.tolerance


@dataclass(frozen=True)
class Timing:
    """One form at one batch size.

    Attributes:
        batch_size: sequences.
        prefill_seconds: of each round's forward pass of the prompts.
        decode_seconds: of each round's greedy steps.
        peak_bytes: of its weights, and of what one prefill and its greedy steps held besides, at most; None: unknown.
    """

    batch_size: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    peak_bytes: int | None

    def seconds(self, phase: str) -> tuple[float, ...]:
        """Of each round of a phase: prefill or decode."""
        return self.prefill_seconds if phase == PREFILL else self.decode_seconds


@dataclass(frozen=True)
class FormSpeed:
    """One form of one model's weights.

    Attributes:
        name: dense, original (the dense model of --against) or a sparse form's.
        path: of its model.
        file_bytes: of the model's files of tensors, whatever form they are computed in.
        held_bytes: of all parameters and buffers in this form.
        converted: how many matrices are sparse.
        left: how many of the blocks' matrices stay dense, by reason.
        converted_weights: of the sparse matrices, zeros included.
        left_weights: of the blocks' matrices that stay dense.
        agreement: with the dense form of the same weights; None for that itself, and where the form failed.
        problem: why it was not timed, or None.
        timings: by batch size; empty where it was not timed.
    """

    name: str
    path: str
    file_bytes: int
    held_bytes: int
    converted: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    converted_weights: int = 0
    left_weights: int = 0
    agreement: Agreement | None = None
    problem: str | None = None
    timings: tuple[Timing, ...] = ()


@dataclass(frozen=True)
class SpeedReport:
    """What was measured.

    Attributes:
        plan: what was asked for.
        device: cpu or cuda:0.
        dtype: of the weights.
        attention: transformers' name of the implementation.
        prompts: where their tokens are from.
        prefill_logits: last or all: for which positions a prefill computes logits.
        forms: the model's dense form first.
        missing: why other forms can't be used here, by name.
    """

    plan: SpeedPlan
    device: str
    dtype: str
    attention: str | None
    prompts: str
    prefill_logits: str
    forms: tuple[FormSpeed, ...]
    missing: Mapping[str, str]

    @property
    def dense(self) -> FormSpeed:
        """The model's dense form, which others are compared with."""
        return self.forms[0]

    def throughput(self, timing: Timing, phase: str) -> Spread | None:
        """Tokens per second in a phase, prefill or decode; None where it has no tokens."""
        return throughput(self.plan.tokens(phase, timing.batch_size), timing.seconds(phase))

    def times_as_fast(self, timing: Timing, phase: str) -> Spread:
        """How many times as fast as the model's dense form, in the same rounds at the same batch size."""
        dense = next(own for own in self.dense.timings if own.batch_size == timing.batch_size)
        return times_as_fast(timing.seconds(phase), dense.seconds(phase))

    @property
    def phases(self) -> tuple[str, ...]:
        """What was timed: prefill, and decode where there are new tokens."""
        return (PREFILL, DECODE) if self.plan.new_tokens else (PREFILL,)


def throughput(tokens: int, seconds: Sequence[float]) -> Spread | None:
    """Tokens per second; None where there were no tokens.

    Args:
        tokens: of one round, over all sequences.
        seconds: of each round.
    """
    return _spread([tokens / own for own in seconds]) if tokens else None


def times_as_fast(seconds: Sequence[float], dense: Sequence[float]) -> Spread:
    """Seconds of the dense form over those of another one, round by round: over 1 the other one is faster.

    Args:
        seconds: of the form, of each round.
        dense: of the dense form in the same rounds.
    """
    return _spread([other / own for own, other in zip(seconds, dense, strict=True)])


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))
