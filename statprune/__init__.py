"""statprune: one-shot post-training pruning of large language models with statistical correction.

The names below are the Python interface. They are imported when they are first used: ``import statprune`` alone is
quick, which the command needs.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statprune.api.evaluate import evaluate
    from statprune.api.evaluation_result import Evaluation
    from statprune.api.prune import prune
    from statprune.api.save import save
    from statprune.api.statistics import ModelStatistics, statistics
    from statprune.config.register import register
    from statprune.core.compensation import Compensation, Energy
    from statprune.core.methods import Method, get_method
    from statprune.core.moments import Moments
    from statprune.core.patterns import Group, NofM, Pattern, Unstructured
    from statprune.core.refinement import Refinement
    from statprune.core.score import Score, score
    from statprune.core.solution import Diagnostics, Solution
    from statprune.core.sparsegpt import SparseGPT
    from statprune.core.statistics import InputStatistics, StatisticsKind
    from statprune.data.sources import PathUse, Source
    from statprune.data.windows import Windows, calibration_windows, evaluation_windows
    from statprune.errors import ChoiceError, ConfigError, DataError, ModelError, PluginError, StatpruneError
    from statprune.evaluation.perplexity import perplexity, window_losses
    from statprune.evaluation.tasks import TaskOptions
    from statprune.model.compressed import load_compressed
    from statprune.model.coverage import Coverage
    from statprune.model.loading import LoadedModel, load_model
    from statprune.model.matrix import Block
    from statprune.model.saving import save_model
    from statprune.pruning.allocation import Allocation, BlockRatios, NamedRatios, ObserveBlocks, Owl
    from statprune.pruning.report import MatrixReport
    from statprune.pruning.spec import Calibration, Propagation, PruneResult, PruneRuntime, PruneSpec
    from statprune.walk.discover import find_blocks

_MODULES = {
    "Allocation": "pruning.allocation",
    "Block": "model.matrix",
    "BlockRatios": "pruning.allocation",
    "Calibration": "pruning.spec",
    "ChoiceError": "errors",
    "Compensation": "core.compensation",
    "ConfigError": "errors",
    "Coverage": "model.coverage",
    "DataError": "errors",
    "Diagnostics": "core.solution",
    "Energy": "core.compensation",
    "Evaluation": "api.evaluation_result",
    "Group": "core.patterns",
    "InputStatistics": "core.statistics",
    "LoadedModel": "model.loading",
    "MatrixReport": "pruning.report",
    "Method": "core.methods",
    "ModelError": "errors",
    "ModelStatistics": "api.statistics",
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
    "SparseGPT": "core.sparsegpt",
    "StatisticsKind": "core.statistics",
    "StatpruneError": "errors",
    "TaskOptions": "evaluation.tasks",
    "Unstructured": "core.patterns",
    "Windows": "data.windows",
    "calibration_windows": "data.windows",
    "evaluate": "api.evaluate",
    "evaluation_windows": "data.windows",
    "find_blocks": "walk.discover",
    "get_method": "core.methods",
    "load_compressed": "model.compressed",
    "load_model": "model.loading",
    "perplexity": "evaluation.perplexity",
    "prune": "api.prune",
    "register": "config.register",
    "save": "api.save",
    "save_model": "model.saving",
    "score": "core.score",
    "statistics": "api.statistics",
    "window_losses": "evaluation.perplexity",
}

__all__ = [
    "Allocation",
    "Block",
    "BlockRatios",
    "Calibration",
    "ChoiceError",
    "Compensation",
    "ConfigError",
    "Coverage",
    "DataError",
    "Diagnostics",
    "Energy",
    "Evaluation",
    "Group",
    "InputStatistics",
    "LoadedModel",
    "MatrixReport",
    "Method",
    "ModelError",
    "ModelStatistics",
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
    "SparseGPT",
    "StatisticsKind",
    "StatpruneError",
    "TaskOptions",
    "Unstructured",
    "Windows",
    "calibration_windows",
    "evaluate",
    "evaluation_windows",
    "find_blocks",
    "get_method",
    "load_compressed",
    "load_model",
    "perplexity",
    "prune",
    "register",
    "save",
    "save_model",
    "score",
    "statistics",
    "window_losses",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'statprune' has no attribute {name!r}")
        return getattr(importlib.import_module(f"statprune.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
