"""ALPS and ADMM in whole models: transposed matrices, and the experts of a mixture."""

import pytest

from statprune.core.admm import Admm
from statprune.core.alps import Alps
from statprune.core.least_squares import FittedTo
from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneRuntime, PruneSpec
from statprune.walk.discover import find_blocks
from tests.helpers.families import tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)


def errors(name, method, pattern):
    """Mean relative output error of the matrices, weighed alike; the sparsity is checked."""
    model = tiny_model(name)
    blocks = find_blocks(model, WINDOWS)
    spec = PruneSpec(method, pattern, propagation="dense")
    result = prune(model, WINDOWS, spec, PruneRuntime(batch_size=2), blocks=blocks)
    assert result.sparsity == 0.5
    return [matrix.relative_output_error for matrix in result.matrices if not matrix.pooled_statistics]


@pytest.mark.parametrize("name", ["GPT2Config", "MixtralConfig"])
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)], ids=str)
def test_their_errors_are_below_wandas(name, pattern):
    """Of sampled rows, whose error is that of rows they were not fitted to, by less."""
    methods = [get_method("wanda"), Alps(), Admm(), Admm(FittedTo.rows)]
    wanda, alps, admm, sampled = (sum(own) / len(own) for own in (errors(name, own, pattern) for own in methods))
    assert alps < 0.8 * wanda and admm < 0.8 * wanda and sampled < 0.95 * wanda
