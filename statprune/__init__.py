"""statprune: one-shot post-training pruning of large language models with statistical correction.

The names below are the Python interface; the command is a thin layer over it.
"""

from statprune.core.compensation import Energy
from statprune.core.methods import get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.data.windows import Windows, calibration_windows, evaluation_windows
from statprune.errors import ConfigError, DataError, ModelError, StatpruneError
from statprune.evaluate.perplexity import perplexity, window_losses
from statprune.model.loading import load_model, save_model
from statprune.pruning.allocation import Owl
from statprune.pruning.loop import prune
from statprune.walk.discover import find_blocks

__all__ = [
    "ConfigError",
    "DataError",
    "Energy",
    "Group",
    "ModelError",
    "Moments",
    "NofM",
    "Owl",
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
    "save_model",
    "window_losses",
]
