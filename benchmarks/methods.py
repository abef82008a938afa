"""The methods that the benchmarks compare, by the names their results have."""

from statprune import Energy, NofM, Unstructured, get_method
from statprune.core.methods import Method, customary_group
from statprune.core.patterns import Pattern

METHODS = ("wanda", "cvr+energy", "sparsegpt")


def prepared(name: str, pattern: str = "0.5") -> tuple[Method, Pattern, Energy | None]:
    """What ``prune`` takes for a name such as cvr+energy and a pattern such as 0.5 or 2:4."""
    method, _, compensation = name.partition("+")
    keep, is_nofm, of = pattern.partition(":")
    chosen = NofM(int(keep), int(of)) if is_nofm else Unstructured(float(pattern), customary_group(method))
    return get_method(method), chosen, Energy() if compensation else None
