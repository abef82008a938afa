"""Prune a model: what to do, the loop over its blocks, and the memory that takes."""

from statprune.pruning.allocation import BlockRatios, NamedRatios, Owl
from statprune.pruning.loop import prune
from statprune.pruning.report import MatrixReport
from statprune.pruning.spec import Propagation, PruneResult, PruneRuntime, PruneSpec

__all__ = [
    "BlockRatios",
    "MatrixReport",
    "NamedRatios",
    "Owl",
    "Propagation",
    "PruneResult",
    "PruneRuntime",
    "PruneSpec",
    "prune",
]
