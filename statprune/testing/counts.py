"""How many weights a mask has to keep."""

import torch
from torch import Tensor

from statprune.core.patterns import Group, NofM, Pattern, Unstructured, round_down


def count_problem(pattern: Pattern, keep: Tensor) -> str | None:
    """Why a mask hasn't exactly the counts of the pattern, or None.

    Args:
        pattern: one of ours is counted within its groups, any other against what it selects from noise.
        keep: the mask, bool, (out_features, in_features).
    """
    if isinstance(pattern, NofM):
        kept = keep.view(len(keep), -1, pattern.of).sum(2)
        if (kept == pattern.keep).all():
            return None
        row, group = (kept != pattern.keep).nonzero()[0].tolist()
        return f"keeps {int(kept[row, group])} of {pattern.of} in group {group} of row {row}, not {pattern.keep}"
    if isinstance(pattern, Unstructured) and pattern.group is Group.row:
        return _problem_of_rows(pattern, keep)
    removed = int((~keep).sum())
    wanted = round_down(pattern.ratio * keep.numel()) if isinstance(pattern, Unstructured) else _usual(pattern, keep)
    return None if removed == wanted else f"removes {removed} of {keep.numel()} weights, not {wanted}"


def _problem_of_rows(pattern: Unstructured, keep: Tensor) -> str | None:
    removed = (~keep).sum(1)
    total = round_down(pattern.ratio * keep.numel())
    least = total // len(keep) if pattern.exact else round_down(pattern.ratio * keep.shape[1])
    most = least + (1 if pattern.exact else 0)
    if pattern.exact and removed.sum() != total:
        return f"removes {int(removed.sum())} of {keep.numel()} weights, not {total}"
    wrong = (removed < least) | (removed > most)
    if not wrong.any():
        return None
    row = int(wrong.nonzero()[0])
    return f"removes {int(removed[row])} of {keep.shape[1]} weights in row {row}, not {least}"


def _usual(pattern: Pattern, keep: Tensor) -> int:
    noise = torch.rand(keep.shape, generator=torch.Generator().manual_seed(0)).to(keep.device)
    return int((~pattern.select(noise)).sum())
