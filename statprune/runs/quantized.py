"""The stage that measures a model with its matrices quantised, dense or pruned, and what the record says of that."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor

from statprune.errors import ModelError, first_line
from statprune.evaluation.accuracy import finite_or_none
from statprune.evaluation.fidelity import WindowResults
from statprune.model.quantization import (
    LIBRARY,
    QuantizedWeights,
    Scheme,
    library_version,
    model_bytes,
    quantized,
)
from statprune.runs.context import RunContext
from statprune.runs.finals import fidelity_results
from statprune.runs.prepare import Prepared
from statprune.runs.record import QuantizationResult, QuantizedModelResult
from statprune.runs.window_passes import States, window_results
from statprune.system.timing import phase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantized:
    """One quantised model.

    Attributes:
        weights: what quantising changed.
        windows: what it measures.
    """

    weights: QuantizedWeights
    windows: WindowResults


def measure_quantized(
    context: RunContext, prepared: Prepared, dense: Mapping[str, Tensor], states: States | None, name: str
) -> Quantized | None:
    """Quantise the model as it is now, measure it, and give it its own weights back; None where nobody asked for it.

    Args:
        context: the run.
        prepared: its inputs.
        dense: the dense model's losses by dataset.
        states: its last hidden states, which stay; None: no fidelity is measured.
        name: of the model that is quantised: dense or pruned.

    Raises:
        ModelError: the model can't be run with quantised weights.
    """
    scheme = context.config.quantize.scheme
    if scheme is None:
        return None
    with ExitStack() as stack:
        with phase(context.seconds, "quantize"):
            weights = stack.enter_context(quantized(prepared.model, prepared.blocks, scheme))
        try:
            windows = window_results(context, prepared, dense, states, f"{name} {scheme.name}", keeps_states=True)
        except (NotImplementedError, TypeError, AttributeError, AssertionError) as error:  # of torchao's tensors
            raise ModelError(
                f"{type(prepared.model).__name__} can't be run with weights that {LIBRARY} quantised "
                f"({type(error).__name__}: {first_line(error)}); give quantize=none"
            ) from error
    _warn(weights, windows, name)
    return Quantized(weights, windows)


def quantization_result(
    prepared: Prepared, scheme: Scheme | None, dense: Quantized | None, pruned: Quantized | None
) -> QuantizationResult | None:
    """What the record says of the quantised models; None where there are none.

    Args:
        prepared: the run's inputs.
        scheme: how they were quantised.
        dense: the dense model, quantised.
        pruned: the pruned one; None where nothing was pruned.
    """
    if scheme is None or dense is None:
        return None
    return QuantizationResult(
        scheme=scheme.name,
        bits=scheme.bits,
        group_size=scheme.group_size,
        library=f"{LIBRARY} {library_version()}",
        model_bytes=model_bytes(prepared.model),
        dense=_model_result(dense),
        pruned=None if pruned is None else _model_result(pruned),
    )


def _warn(weights: QuantizedWeights, windows: WindowResults, name: str) -> None:
    if weights.zeros_kept < weights.zeros:
        changed = weights.zeros - weights.zeros_kept
        log.warning("%d zeros of the %s model are no zeros once it is quantised; the record counts them", changed, name)
    for source, losses in windows.losses.items():
        if not losses.isfinite().all():
            log.warning("the perplexity of the quantised %s model on %s is not finite", name, source)


def _model_result(model: Quantized) -> QuantizedModelResult:
    windows = model.windows
    return QuantizedModelResult(
        weights=model.weights,
        perplexity={source: finite_or_none(own.mean().exp().item()) for source, own in windows.losses.items()},
        fidelity=None if windows.fidelity is None else fidelity_results(windows.fidelity),
    )
