"""ALPS in whole models: transposed matrices, and the experts of a mixture."""

import pytest

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
    spec = PruneSpec(get_method(method), pattern, propagation="dense")
    result = prune(model, WINDOWS, spec, PruneRuntime(batch_size=2), blocks=blocks)
    assert result.sparsity == 0.5
    return [matrix.relative_output_error for matrix in result.matrices if not matrix.pooled_statistics]


@pytest.mark.parametrize("name", ["GPT2Config", "MixtralConfig"])
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)], ids=str)
def test_its_error_is_below_wandas(name, pattern):
    wanda, alps = (errors(name, method, pattern) for method in ("wanda", "alps"))
    assert sum(alps) / len(alps) < 0.8 * sum(wanda) / len(wanda)
