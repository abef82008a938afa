"""The methods that the benchmarks compare, by the names their results have."""

from dataclasses import replace

from statprune import Energy, NofM, PruneSpec, Unstructured, get_method
from statprune.pruning.spec import Propagation

METHODS = ("wanda", "cvr+energy", "sparsegpt")


def prepared(name: str, pattern: str = "0.5", propagation: str = "pruned") -> PruneSpec:
    """What ``prune`` is given for a name such as cvr+energy and a pattern such as 0.5 or 2:4."""
    method_name, _, compensation = name.partition("+")
    method = get_method(method_name)
    keep, is_nofm, of = pattern.partition(":")
    chosen = NofM(int(keep), int(of)) if is_nofm else Unstructured(float(pattern), method.group)
    spec = PruneSpec(method, chosen, Energy() if compensation else None)
    return replace(spec, propagation=Propagation(propagation))
