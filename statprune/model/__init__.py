"""One opened model: its blocks and matrices, how it is opened, streamed and saved, and what of it can be pruned."""

from statprune.model.coverage import Coverage, measure_coverage, sparsity
from statprune.model.loading import LoadedModel, load_model
from statprune.model.matrix import Block, PrunableMatrix, SkippedMatrix
from statprune.model.saving import save_model

__all__ = [
    "Block",
    "Coverage",
    "LoadedModel",
    "PrunableMatrix",
    "SkippedMatrix",
    "load_model",
    "measure_coverage",
    "save_model",
    "sparsity",
]
