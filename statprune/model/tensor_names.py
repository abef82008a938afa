"""Which tensors of two checkpoints are the same: a base model's names lack the prefix that a language model's have."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from statprune.model.checkpoint_tensors import CheckpointTensors

LONGEST = 2  # components of a prefix


def counterparts(own: Iterable[str], dense: Iterable[str]) -> dict[str, str]:
    """A checkpoint's names by those of another one: equal ones, and those that one prefix makes equal.

    Args:
        own: names whose counterparts are looked for.
        dense: names in which they are looked for.

    Returns:
        Names in ``dense`` by names in ``own``, without those that have no counterpart.

    Examples:
        >>> counterparts(["lm_head.weight", "transformer.h.0.ln_1.bias"], ["h.0.ln_1.bias", "wpe.weight"])
        {'transformer.h.0.ln_1.bias': 'h.0.ln_1.bias'}
    """
    names, others = list(own), set(dense)
    same = {name: name for name in names if name in others}
    left, free = [name for name in names if name not in same], others - same.keys()
    found = max((_without(left, free), _with(left, free)), key=len)
    return {name: counterpart for name in names if (counterpart := same.get(name) or found.get(name)) is not None}


def named_as(own: Iterable[str], dense: CheckpointTensors) -> CheckpointTensors:
    """A checkpoint whose tensors have the names of their counterparts; those without any keep their own."""
    names = {counterpart: name for name, counterpart in counterparts(own, dense.readers).items()}
    return replace(dense, readers={names.get(name, name): read for name, read in dense.readers.items()})


def _without(own: Iterable[str], dense: set[str]) -> dict[str, str]:
    """Counterparts that lack a prefix which the own names have."""
    by_prefix: Counter[str] = Counter()
    for name in own:
        by_prefix.update(prefix for prefix in _prefixes(name) if name.removeprefix(prefix) in dense)
    if not by_prefix:
        return {}
    prefix = by_prefix.most_common(1)[0][0]
    names = [name for name in own if name.startswith(prefix)]
    return {name: name.removeprefix(prefix) for name in names if name.removeprefix(prefix) in dense}


def _with(own: Iterable[str], dense: set[str]) -> dict[str, str]:
    """Counterparts that have a prefix which the own names lack."""
    return {name: other for other, name in _without(dense, set(own)).items()}


def _prefixes(name: str) -> list[str]:
    """What may stand in front of a name: its first components, up to the first number."""
    parts, prefixes = name.split("."), []
    for count in range(1, min(LONGEST, len(parts) - 1) + 1):
        if parts[count - 1].isdigit():
            break
        prefixes.append(".".join(parts[:count]) + ".")
    return prefixes
