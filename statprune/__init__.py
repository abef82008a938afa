"""statprune: one-shot post-training pruning of large language models with statistical correction.

The names below are the Python interface. They are imported when they are first used: ``import statprune`` alone is
quick, which the command needs.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statprune.config.register import register
    from statprune.core.compensation import Compensation, Energy
    from statprune.core.methods import Method, get_method
    from statprune.core.moments import Moments
    from statprune.core.patterns import Group, NofM, Pattern, Unstructured
    from statprune.core.refinement import Refinement
    from statprune.core.score import Score, score
    from statprune.core.solution import Diagnostics, Solution
    from statprune.core.statistics import InputStatistics, StatisticsKind
    from statprune.data.sources import PathUse, Source
    from statprune.data.windows import Windows, calibration_windows, evaluation_windows
    from statprune.errors import ConfigError, DataError, ModelError, PluginError, StatpruneError
    from statprune.evaluation.perplexity import perplexity, window_losses
    from statprune.model.loading import LoadedModel, load_model
    from statprune.model.matrix import Block
    from statprune.model.saving import save_model
    from statprune.pruning.allocation import Allocation, BlockRatios, NamedRatios, ObserveBlocks, Owl
    from statprune.pruning.loop import prune
    from statprune.pruning.report import MatrixReport
    from statprune.pruning.spec import Propagation, PruneResult, PruneRuntime, PruneSpec
    from statprune.walk.discover import find_blocks

_MODULES = {
    "Allocation": "pruning.allocation",
    "Block": "model.matrix",
    "BlockRatios": "pruning.allocation",
    "Compensation": "core.compensation",
    "ConfigError": "errors",
    "DataError": "errors",
    "Diagnostics": "core.solution",
    "Energy": "core.compensation",
    "Group": "core.patterns",
    "InputStatistics": "core.statistics",
    "LoadedModel": "model.loading",
    "MatrixReport": "pruning.report",
    "Method": "core.methods",
    "ModelError": "errors",
    "Moments": "core.moments",
    "NamedRatios": "pruning.allocation",
    "NofM": "core.patterns",
    "ObserveBlocks": "pruning.allocation",
    "Owl": "pruning.allocation",
    "PathUse": "data.sources",
    "Pattern": "core.patterns",
    "PluginError": "errors",
    "Propagation": "pruning.spec",
    "PruneResult": "pruning.spec",
    "PruneRuntime": "pruning.spec",
    "PruneSpec": "pruning.spec",
    "Refinement": "core.refinement",
    "Score": "core.score",
    "Solution": "core.solution",
    "Source": "data.sources",
    "StatisticsKind": "core.statistics",
    "StatpruneError": "errors",
    "Unstructured": "core.patterns",
    "Windows": "data.windows",
    "calibration_windows": "data.windows",
    "evaluation_windows": "data.windows",
    "find_blocks": "walk.discover",
    "get_method": "core.methods",
    "load_model": "model.loading",
    "perplexity": "evaluation.perplexity",
    "prune": "pruning.loop",
    "register": "config.register",
    "save_model": "model.saving",
    "score": "core.score",
    "window_losses": "evaluation.perplexity",
}

__all__ = [
    "Allocation",
    "Block",
    "BlockRatios",
    "Compensation",
    "ConfigError",
    "DataError",
    "Diagnostics",
    "Energy",
    "Group",
    "InputStatistics",
    "LoadedModel",
    "MatrixReport",
    "Method",
    "ModelError",
    "Moments",
    "NamedRatios",
    "NofM",
    "ObserveBlocks",
    "Owl",
    "PathUse",
    "Pattern",
    "PluginError",
    "Propagation",
    "PruneResult",
    "PruneRuntime",
    "PruneSpec",
    "Refinement",
    "Score",
    "Solution",
    "Source",
    "StatisticsKind",
    "StatpruneError",
    "Unstructured",
    "Windows",
    "calibration_windows",
    "evaluation_windows",
    "find_blocks",
    "get_method",
    "load_model",
    "perplexity",
    "prune",
    "register",
    "save_model",
    "score",
    "window_losses",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'statprune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"statprune.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
