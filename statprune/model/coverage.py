"""How many of the blocks' matrix weights can be pruned, are pruned, are skipped and why; and how many are zero."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from statprune.model.matrix import Block


@dataclass
class KindCoverage:
    """Weights of one kind of module, summed over all blocks.

    Attributes:
        prunable: could be pruned [weights].
        pruned: are pruned [weights].
        skipped: are not prunable [weights].
        reasons: skipped ones by reason [weights].
    """

    prunable: int = 0
    pruned: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Coverage:
    """Matrix weights of all blocks.

    Attributes:
        prunable: could be pruned [weights].
        pruned: are pruned [weights].
        skipped: are not prunable [weights].
        kinds: the same by kind of module.
        experts_with_pooled_statistics: how many too few calibration tokens reached [experts].
        experts_without_tokens: how many no calibration token reached [experts].
    """

    prunable: int
    pruned: int
    skipped: int
    kinds: dict[str, KindCoverage]
    experts_with_pooled_statistics: int = 0
    experts_without_tokens: int = 0


def measure_coverage(blocks: Iterable[Block], is_pruned: bool = True) -> Coverage:
    """The blocks' coverage.

    Args:
        blocks: the decoder blocks.
        is_pruned: False where the run prunes nothing.
    """
    kinds: dict[str, KindCoverage] = {}
    for block in blocks:
        for matrix in block.matrices:
            kind = kinds.setdefault(matrix.kind, KindCoverage())
            kind.prunable += matrix.weights
            kind.pruned += matrix.weights if is_pruned else 0
        for skipped in block.skipped:
            kind = kinds.setdefault(skipped.kind, KindCoverage())
            kind.reasons[skipped.reason] = kind.reasons.get(skipped.reason, 0) + skipped.weights
            kind.skipped += skipped.weights
    return Coverage(
        prunable=sum(kind.prunable for kind in kinds.values()),
        pruned=sum(kind.pruned for kind in kinds.values()),
        skipped=sum(kind.skipped for kind in kinds.values()),
        kinds=kinds,
    )


def coverage_warning(coverage: Coverage) -> str | None:
    """A sentence that names the modules, where under 99% of the matrix weights not excluded on purpose are prunable."""
    unwanted = [
        (name, reason, weights)
        for name, kind in coverage.kinds.items()
        for reason, weights in kind.reasons.items()
        if reason != "excluded"
    ]
    skipped = sum(weights for _, _, weights in unwanted)
    total = coverage.prunable + skipped
    if skipped <= 0.01 * total:
        return None
    names = ", ".join(f"{name} ({weights:,} weights: {reason})" for name, reason, weights in unwanted)
    return f"{skipped / total:.1%} of the blocks' matrix weights are left dense: {names}"


def sparsity(blocks: Iterable[Block]) -> float:
    """Fraction of exact zeros among all matrix weights of the blocks, pruned or not, counted on the stored weights."""
    zeros = total = 0
    for block in blocks:
        with block.loaded():
            tensors = [matrix.stored for matrix in block.matrices] + [skipped.tensor for skipped in block.skipped]
            for tensor in tensors:
                zeros += int((tensor == 0).sum())
                total += tensor.numel()
    return zeros / max(total, 1)
