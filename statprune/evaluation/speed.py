"""Measure how fast models compute in the forms of their weights, side by side in one run."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.evaluation.speed_passes import CHECKED_STEPS, Passes, Prompts, agreement, make_prompts
from statprune.evaluation.speed_report import AGAINST, DENSE, Agreement, FormSpeed, SpeedPlan, SpeedReport, Timing
from statprune.model.any_checkpoint import open_any
from statprune.model.loading import LoadedModel, check_length, vocabulary_size
from statprune.model.sparse_forms import Conversion, available_forms, convert
from statprune.model.sparse_layers import held_bytes, own_memory
from statprune.system.memory import peak_above

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# relative differences of logits that other orders of summation explain, by dtype
TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass
class Candidate:
    """A form on its way through the run.

    Attributes:
        name: of the form.
        path: of its model.
        model: in memory; forms of one model share it.
        file_bytes: of its files.
        conversion: the sparse matrices; None: dense.
        agreement: with the dense form.
        problem: why it is not timed.
        held_bytes: in this form.
        peaks: by batch size.
        seconds: (prefill, decode) of each round, by batch size.
    """

    name: str
    path: str
    model: "PreTrainedModel"
    file_bytes: int
    conversion: Conversion | None = None
    agreement: Agreement | None = None
    problem: str | None = None
    held_bytes: int = 0
    peaks: dict[int, int | None] = field(default_factory=dict)
    seconds: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def installed(self) -> AbstractContextManager[None]:
        """Have the model compute in this form while the body runs."""
        return nullcontext() if self.conversion is None else self.conversion.installed(self.model)

    def result(self) -> FormSpeed:
        """What was found of it."""
        own = self.conversion
        return FormSpeed(
            name=self.name,
            path=self.path,
            file_bytes=self.file_bytes,
            held_bytes=self.held_bytes,
            converted=len(own.modules) if own is not None else 0,
            left=own.left if own is not None else {},
            converted_weights=own.weights if own is not None else 0,
            left_weights=own.dense_weights if own is not None else 0,
            agreement=self.agreement,
            problem=self.problem,
            timings=tuple(
                Timing(size, tuple(own[0] for own in pairs), tuple(own[1] for own in pairs), self.peaks[size])
                for size, pairs in self.seconds.items()
            ),
        )


class SpeedRun:
    """One side-by-side measurement.

    Args:
        plan: what to measure.
        candidates: the first one dense; of every model, the dense form before its others.
        prompts: of the largest batch, with tokens for the steps that are checked.
        device: where.
        timed: seconds of prefill and decoding of a model: ``Passes.timed``, or another clock in tests.
    """

    def __init__(
        self,
        plan: SpeedPlan,
        candidates: Sequence[Candidate],
        prompts: Prompts,
        device: torch.device,
        timed: Callable[[Passes, Tensor, int], tuple[float, float]] = Passes.timed,
    ):
        self._plan, self._candidates, self._prompts, self._device = plan, candidates, prompts, device
        self._timed = timed
        self._steps = prompts.ids.shape[1] - plan.prompt_tokens

    def measure(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check the outputs, take the memory and then the times, in interleaved rounds.

        Args:
            progress: called with how many passes are done, and how many there are.
        """
        steps = [*self._first_steps(), *self._rounds()]
        for number, step in enumerate(steps, start=1):
            step()
            if progress is not None:
                progress(number, len(steps))

    def _first_steps(self) -> Iterator[Callable[[], None]]:
        """What is not timed, and warms each form up at each batch size: twice."""
        dense: dict[int, list[Tensor]] = {}
        for candidate in self._candidates:
            yield partial(self._check, candidate, dense)
        yield collect_garbage  # which takes long, and passes leave little of it
        for candidate in self._candidates:
            yield partial(self._take_memory, candidate)

    def _rounds(self) -> Iterator[Callable[[], None]]:
        """Every form in turn at each batch size of each round, each round beginning with another form."""
        for number in range(self._plan.rounds):
            for size in self._plan.batch_sizes:
                first = number % len(self._candidates)
                for candidate in (*self._candidates[first:], *self._candidates[:first]):
                    yield partial(self._time, candidate, size)

    def _check(self, candidate: Candidate, dense: dict[int, list[Tensor]]) -> None:
        """Compare the form's logits with those of its model's dense form, at every batch size that is timed."""
        passes = Passes(candidate.model, self._device)
        try:
            with candidate.installed():
                candidate.held_bytes = held_bytes(candidate.model)
                found = [
                    passes.checked_logits(self._prompts.ids[:size].to(self._device), self._steps)
                    for size in self._plan.batch_sizes
                ]
        except ModelError:
            raise
        except Exception as error:
            if candidate.conversion is None:
                raise
            candidate.problem = f"{type(error).__name__}: {first_line(error)}"
            return
        if candidate.conversion is None:
            dense[id(candidate.model)] = found
            return
        pairs = zip(found, dense[id(candidate.model)], strict=True)
        candidate.agreement = agreement(pairs, tolerance_of(self._plan, candidate.model.dtype))
        if not candidate.agreement.is_dense_finite:
            candidate.problem = "the logits of the same weights, dense, are not finite"
        elif not candidate.agreement.is_same:
            candidate.problem = "its outputs differ from those of the same weights, dense"

    def _take_memory(self, candidate: Candidate) -> None:
        for size in self._plan.batch_sizes if candidate.problem is None else ():
            above = peak_above(self._device, partial(self._pass, candidate, size))
            candidate.peaks[size] = candidate.held_bytes + above if above is not None else None

    def _time(self, candidate: Candidate, size: int) -> None:
        if candidate.problem is None:
            candidate.seconds.setdefault(size, []).append(self._pass(candidate, size))

    def _pass(self, candidate: Candidate, size: int) -> tuple[float, float]:
        prompts = self._prompts.ids[:size, : self._plan.prompt_tokens].to(self._device)
        with candidate.installed():
            return self._timed(Passes(candidate.model, self._device), prompts, self._plan.new_tokens)


def measure_speed(
    path: str,
    against: str | None,
    plan: SpeedPlan,
    dtype: str,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> SpeedReport:
    """Measure a model's dense weights, their sparse forms, and another model's dense weights.

    Args:
        path: of the model.
        against: of the other one; None: none.
        plan: what to measure.
        dtype: auto, float32, bfloat16 or float16.
        device: where.
        progress: called with how many passes are done, and how many there are.

    Raises:
        ModelError: a model can't be opened, is too short for the plan, or differs from the other one in its dtype.
    """
    loaded, file_bytes = _opened(path, dtype, device, plan)
    candidates = [Candidate(DENSE, path, loaded.model, file_bytes)]
    if against is not None:
        other, other_bytes = _opened(against, dtype, device, plan)
        if other.model.dtype != loaded.model.dtype:
            raise ModelError(
                f"{path} opens in {_plain(loaded.model.dtype)} and {against} in {_plain(other.model.dtype)}: times "
                "of different dtypes say nothing of the weights; give both the same with --dtype"
            )
        candidates.append(Candidate(AGAINST, against, other.model, other_bytes))
    forms, missing = available_forms(device, loaded.model.dtype)
    for form in forms:
        candidates.append(Candidate(form.name, path, loaded.model, file_bytes, convert(loaded.model, form)))
    steps = min(plan.new_tokens, CHECKED_STEPS)
    rows = min(vocabulary_size(candidate.model) for candidate in candidates)
    prompts = make_prompts(loaded.tokenizer, max(plan.batch_sizes), plan.prompt_tokens + steps, rows)
    used = [own for own in candidates if own.conversion is None or own.conversion.modules]
    SpeedRun(plan, used, prompts, device).measure(progress)
    for own in candidates:
        own.problem = own.problem if own in used else "none of the blocks' matrices can be converted"
    return SpeedReport(
        plan=plan,
        device=str(device),
        dtype=_plain(loaded.model.dtype),
        attention=getattr(loaded.model.config, "_attn_implementation", None),
        prompts=prompts.source,
        prefill_logits=Passes(loaded.model, device).logits,
        forms=tuple(own.result() for own in candidates),
        missing=missing,
    )


def collect_garbage() -> None:
    """Free what only cycles of objects still hold."""
    gc.collect()


def tolerance_of(plan: SpeedPlan, dtype: torch.dtype) -> float:
    """The plan's tolerance, or that of the dtype."""
    return plan.tolerance if plan.tolerance is not None else TOLERANCES.get(dtype, TOLERANCES[torch.float32])


def _opened(path: str, dtype: str, device: torch.device, plan: SpeedPlan) -> tuple[LoadedModel, int]:
    loaded, file_bytes = open_any(path, dtype, str(device))
    length = plan.prompt_tokens + plan.new_tokens
    check_length(loaded.model, length, f"--prompt-tokens and --new-tokens, {length} together,")
    if device.type == "cpu":
        own_memory(loaded.model)
    return loaded, file_bytes


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
