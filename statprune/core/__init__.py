"""Pure tensor functions: what is computed of one matrix, without models, files or blocks.

A weight is always (out_features, in_features) in float32 or float64. "The paper" is arXiv 2602.07375.
"""

from statprune.core.compensation import Compensation, Energy
from statprune.core.methods import Method, Solution, get_method, method_names, options_class
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.statistics import DenseStatistics, InputStatistics, StatisticsKind

__all__ = [
    "Compensation",
    "DenseStatistics",
    "Energy",
    "Group",
    "InputStatistics",
    "Method",
    "Moments",
    "NofM",
    "Pattern",
    "Solution",
    "StatisticsKind",
    "Unstructured",
    "get_method",
    "method_names",
    "options_class",
]
