"""The card of a model that was saved from Python; its wording is that of a run's card."""

from typing import TypeVar

import torch

from statprune.core.compensation import COMPENSATIONS, Compensation
from statprune.core.gram import GramPrecision
from statprune.core.methods import METHODS, Method, ScoreMethod
from statprune.core.patterns import PATTERNS, NofM, Pattern, Unstructured
from statprune.core.refinement import REFINEMENTS
from statprune.core.score import SCORES
from statprune.model.base_card import base_card
from statprune.model.loading import ModelSource
from statprune.pruning.allocation import ALLOCATIONS, UNIFORM
from statprune.pruning.spec import Calibration, PruneResult, PruneSpec
from statprune.runs.card_parts import PLACE, checks, header, licence, table_of, usage
from statprune.runs.environment import describe_environment
from statprune.runs.model_card import left_dense, options_in_words, versions_of
from statprune.system.options import plain
from statprune.system.registry import Registry

T = TypeVar("T")


def card(
    source: ModelSource,
    achieved: float,
    result: PruneResult | None,
    device: torch.device,
    is_compressed: bool = False,
) -> str:
    """Markdown with the hub's metadata header.

    Args:
        source: of the dense model.
        achieved: fraction of zeros among all matrix weights of the blocks, as they are saved.
        result: how the model was pruned; None: not known.
        device: that the model is on.
        is_compressed: whether it is saved compressed.
    """
    revision = f", revision {source.revision}" if source.revision else ""
    facts = {"base model": f"`{source.path}`{revision}"}
    zeros = f"achieved {achieved:.5f} over all block matrices"
    if result is None:
        facts["sparsity"] = zeros
    else:
        facts |= _stages(result.spec)
        facts["sparsity"] = f"{_pattern(result.spec)}; {zeros}"
        facts["calibration"] = f"{_calibration(result.calibration)}; propagation {result.spec.propagation.value}"
        if result.spec.gram_precision is not GramPrecision.float32:
            facts["Gram matrices"] = f"of inputs rounded to {result.spec.gram_precision.value}"
        coverage = result.coverage
        total = coverage.prunable + coverage.skipped
        facts["coverage"] = f"{coverage.pruned:,} of {total:,} weights of the blocks' matrices were pruned"
        facts |= left_dense(coverage)
    facts["made with"] = versions_of(describe_environment(device))
    base = base_card(source.path, source.revision)
    what, is_pruned = "saved" if result is None else "pruned", result is not None
    lines = header(source.path, what, is_pruned, base, is_compressed) + table_of(facts)
    lines += usage(PLACE, is_compressed, source.trust_remote_code) + checks(PLACE, of_run=False) + licence(base)
    return "\n".join(lines) + "\n"


def _stages(spec: PruneSpec) -> dict[str, str]:
    """Method, refinement and compensation with their options."""
    facts = {"method": _method(spec.method)}
    if spec.refinement is not None:
        facts["refinement"] = _words(REFINEMENTS, spec.refinement)
    facts["compensation"] = "none" if spec.compensation is None else _compensation(spec.compensation)
    return facts


def _method(method: Method) -> str:
    if not isinstance(method, ScoreMethod):
        return _words(METHODS, method)
    name = _own_name(SCORES, method.score) or method.score.function.__name__
    return options_in_words({"name": name, **plain(method.options)})


def _compensation(compensation: Compensation) -> str:
    return _words(COMPENSATIONS, compensation)


def _pattern(spec: PruneSpec) -> str:
    pattern: Pattern = spec.pattern
    if isinstance(pattern, NofM):
        return f"{pattern.keep}:{pattern.of}"
    allocation = UNIFORM if spec.allocation is None else _words(ALLOCATIONS, spec.allocation)
    if isinstance(pattern, Unstructured):
        return f"unstructured {pattern.ratio}, compared by {pattern.group.value}, allocation {allocation}"
    return f"{_words(PATTERNS, pattern)}, allocation {allocation}"


def _calibration(calibration: Calibration) -> str:
    source = calibration.origin.source if calibration.origin is not None else "token ids of the caller's"
    windows = f"{calibration.samples} windows of {calibration.seq_len} tokens"
    return f"{source}, {windows}, seed {calibration.seed}"


def _words(registry: Registry[type[T]], value: object) -> str:
    """A choice's name, its class's where it has none, and its options."""
    own: type = type(value)
    name = _own_name(registry, own) or own.__name__
    return options_in_words({"name": name, **plain(value)})


def _own_name(registry: Registry[T], value: T) -> str | None:
    """The name of a choice, or None where it has none."""
    for name in registry.names():
        if registry.origin(name).is_own:
            registry.get(name)  # a registry knows the names of what it has loaded
    return registry.name_of(value)
