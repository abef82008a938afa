"""Check of patterns."""

from collections.abc import Iterator

import torch
from torch import Tensor

from statprune.core.patterns import Pattern, round_down
from statprune.testing.cases import COLUMNS, ROWS, devices
from statprune.testing.rules import Unchanged, called, check_options, check_tensor, fail, identical, require

BLOCK = 8  # columns of a block, for methods that select block by block


def check_pattern(pattern: Pattern, shape: tuple[int, int] = (ROWS, COLUMNS)) -> None:
    """Check a pattern: a mask with the same count whatever the score is, of higher scores, deterministic.

    Args:
        pattern: an instance.
        shape: of the scores: (out_features, in_features), which the pattern has to fit.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    if not isinstance(pattern, Pattern):
        fail(f"check_pattern was given {type(pattern).__name__}; give an instance of a subclass of statprune.Pattern")
    name = type(pattern).__name__
    if _all_have_defaults(pattern):
        check_options(pattern, "sparsity.")
    require(0 <= pattern.target < 1, f"{name}.target is {pattern.target}, which is outside [0, 1)")
    problem = pattern.problem(shape[1])
    require(problem is None, f"{name} does not fit {shape[1]} inputs ({problem}); give check_pattern another shape")
    removed = {what: _removed(pattern, score, f"{name} of {what}") for what, score in _scores(shape)}
    most = round_down(pattern.target * shape[0] * shape[1])
    counts = sorted(set(removed.values()))
    require(len(counts) == 1, f"{name} removes {' or '.join(map(str, counts))} weights, depending on the score")
    require(counts[0] <= most, f"{name} removes {counts[0]} weights, but its target, {pattern.target}, is {most}")
    _check_ratio(pattern, shape)
    _check_columns(pattern, shape, counts[0])
    _check_partial(pattern, shape, counts[0])


def _all_have_defaults(pattern: Pattern) -> bool:
    try:
        type(pattern)()
    except TypeError:
        return False  # as N:M, whose two numbers are always given
    return True


def _removed(pattern: Pattern, score: Tensor, what: str) -> int:
    unchanged = Unchanged(what, {"score": score})
    keep = check_tensor(called(what, lambda: pattern.select(score)), score, f"the mask of {what}", torch.bool).clone()
    unchanged.check()
    require(
        identical(keep, pattern.select(score)),
        f"{what} selects others when it is asked again; take no random numbers without a seed",
    )
    if bool(keep.any()) and not bool(keep.all()):
        kept, pruned = score[keep].double().mean(), score[~keep].double().mean()
        require(bool(kept >= pruned - 1e-9), f"{what} keeps lower scores than it removes; the higher ones are kept")
    return int((~keep).sum())


def _scores(shape: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kinds = {
        "a random score": noise,
        "a score of zeros": torch.zeros_like(noise),
        "a score with ties": (noise * 4).floor(),
        "a score with one large row": noise + 100 * (torch.arange(shape[0]) == 0)[:, None],
    }
    for device in devices():
        for dtype in (torch.float32, torch.float64):
            for label, score in kinds.items():
                yield f"{label} ({str(dtype).removeprefix('torch.')}, {device.type})", score.to(device, dtype)


def _check_ratio(pattern: Pattern, shape: tuple[int, int]) -> None:
    """An allocation's ratio is a whole number of weights, and the pattern has to remove that many."""
    weights = shape[0] * shape[1]
    for count in (0, weights // 7, weights - 1):
        other = pattern.at_ratio(count / weights)
        if other is None:
            return
        for _, score in _scores(shape):
            removed = int((~other.select(score)).sum())
            require(
                removed == count,
                f"{type(pattern).__name__}.at_ratio({count / weights:.4f}) removes {removed} weights, not {count}; "
                "return None where the pattern can't have every ratio",
            )


def _check_columns(pattern: Pattern, shape: tuple[int, int], whole: int) -> None:
    """Blocks of columns together lose what the matrix loses."""
    if shape[1] % BLOCK or pattern.crosses(BLOCK) is not None or pattern.problem(BLOCK) is not None:
        return
    name = f"{type(pattern).__name__}.columns"
    removed = 0
    _, score = next(_scores(shape))
    for first in range(0, shape[1], BLOCK):
        part = called(name, lambda first=first: pattern.columns(shape[0], first, first + BLOCK))  # type: ignore[misc]
        removed += int((~part.select(score[:, first : first + BLOCK].contiguous())).sum())
    require(
        removed == whole,
        f"{type(pattern).__name__} removes {removed} weights in blocks of {BLOCK} columns, but {whole} of the whole "
        "matrix; override columns(), or say in crosses() why it can't be selected by blocks",
    )


def _check_partial(pattern: Pattern, shape: tuple[int, int], whole: int) -> None:
    """A part of the pattern removes no more than the whole, which all of it removes."""
    _, score = next(_scores(shape))
    for share in (0.1, 0.5, 0.9, 1.0):
        name = f"{type(pattern).__name__}.partial({share})"
        part = called(name, lambda share=share: pattern.partial(share))  # type: ignore[misc]
        require(isinstance(part, Pattern), f"{name} is {type(part).__name__}; return a pattern, or self")
        removed = int((~part.select(score)).sum())
        least = whole if share == 1 else 0
        require(least <= removed <= whole, f"{name} removes {removed} weights, and the whole pattern {whole}")
