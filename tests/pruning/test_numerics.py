"""What is not finite in a model ends in an error that names block and layer, whatever the method and propagation."""

import pytest
import torch

from statprune.core.compensation import Energy
from statprune.core.methods import get_method, method_names
from statprune.core.moments import Moments
from statprune.core.patterns import NofM, Unstructured
from statprune.errors import ModelError
from statprune.pruning.allocation import BlockRatios, NamedRatios, Owl
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneSpec
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(3, 16, lowest=1)
LATE = 0  # a token that only the last window has, at its end
ALLOCATIONS = [None, Owl(2.0, 0.1), BlockRatios((0.3, 0.5, 0.7)), NamedRatios((("mlp", 0.4),))]
COMPENSATIONS = [None, Energy(), Energy(rows=False), Energy(columns=False), Moments()]


def spec(name="wanda", pattern=None, **options):
    return PruneSpec(get_method(name), pattern or Unstructured(0.5), **options)


def refused(model, windows, wanted, message):
    """The model is found to be sound, is damaged then, and pruned."""
    blocks = find_blocks(model, WINDOWS)
    damage(model)
    with pytest.raises(ModelError, match=message):
        prune(model, windows, wanted, blocks=blocks)


def damage(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 2] = torch.nan


def late_overflow():
    """A float16 model whose first MLP overflows at the very last calibration token alone, and the windows."""
    model = tiny_llama().half()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[LATE] = 0
        model.model.embed_tokens.weight[LATE, 0] = 100
        for matrix in (model.model.layers[0].mlp.gate_proj, model.model.layers[0].mlp.up_proj):
            matrix.weight[:, 0] = 80
    windows = WINDOWS.clone()
    windows[-1, -1] = LATE
    return model, windows


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("propagation", Propagation)
def test_a_weight_that_is_nan_is_an_error_of_its_layer(name, propagation):
    message = "layer mlp.up_proj of block 1 can't be pruned: 1 of its 1536 weights are NaN or infinite, first that of"
    refused(tiny_llama(), WINDOWS, spec(name, propagation=propagation), message)


@pytest.mark.parametrize("allocation", ALLOCATIONS, ids=str)
def test_a_weight_that_is_nan_is_an_error_of_its_layer_whatever_the_allocation(allocation):
    refused(tiny_llama(), WINDOWS, spec(allocation=allocation), r"layer mlp\.(up_proj|down_proj) of block 1")


@pytest.mark.parametrize("compensation", COMPENSATIONS, ids=str)
@pytest.mark.parametrize("pattern", [Unstructured(0.0), NofM(2, 4)], ids=str)
def test_a_weight_that_is_nan_is_an_error_of_its_layer_whatever_else(compensation, pattern):
    refused(
        tiny_llama(), WINDOWS, spec("magnitude", pattern, compensation=compensation), "layer mlp.up_proj of block 1"
    )


@pytest.mark.parametrize("name", [name for name in method_names() if name != "magnitude"])  # which reads no inputs
@pytest.mark.parametrize("propagation", Propagation)
def test_a_late_token_that_overflows_is_an_error_of_its_layer(name, propagation):
    model, windows = late_overflow()
    with pytest.raises(
        ModelError, match=r"layer \S+ of block 0 can't be pruned: its calibration inputs are NaN or inf"
    ):
        prune(model, windows, spec(name, propagation=propagation), blocks=find_blocks(model, WINDOWS))


def test_outliers_of_inputs_that_overflow_are_an_error_of_their_layer():
    model, windows = late_overflow()
    with pytest.raises(ModelError, match=r"layer \S+ of block 0 has no outliers to count: the score holds NaN"):
        prune(model, windows, spec("magnitude", allocation=Owl()), blocks=find_blocks(model, WINDOWS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", method_names())
def test_narrow_dtypes_are_pruned_to_the_sparsity_asked_for(name, dtype):
    result = prune(tiny_llama().to(dtype), WINDOWS, spec(name, NofM(2, 4), compensation=Energy()))
    assert result.sparsity == pytest.approx(0.5, abs=0.002)  # a kept weight may vanish in the stored dtype


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("ratio", [0.0, 0.999])
def test_extreme_ratios_keep_what_they_say(name, ratio):
    result = prune(tiny_llama(), WINDOWS, spec(name, Unstructured(ratio), compensation=Moments()))
    removed = [int(ratio * report.in_features) / report.in_features for report in result.matrices]
    whole = [int(ratio * report.weights) / report.weights for report in result.matrices]
    sparsity = [report.sparsity for report in result.matrices]
    assert sparsity in (removed, whole) or sparsity == pytest.approx(removed)
