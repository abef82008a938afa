"""What a GPU prunes, against a CPU: every method, correction and place of a tiny model."""

import copy

import pytest
import torch

from statprune import NofM, PruneRuntime, PruneSpec, Unstructured, find_blocks, get_method
from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import method_names
from statprune.core.refinement import REFINEMENTS
from statprune.model.loading import LoadedModel, ModelSource
from statprune.model.offload import HostSource, Streamer
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation
from statprune.walk.activations import Placement
from tests.helpers.models import tiny_llama, tiny_tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
WINDOWS = torch.randint(97, (6, 48), generator=torch.Generator().manual_seed(0))
PATTERNS = [Unstructured(0.5), NofM(2, 4)]
METHODS = [name for name in method_names() if name != "dense"]


def spec(method="wanda", pattern=PATTERNS[0], compensation=None, refinement=None, **options):
    return PruneSpec(
        get_method(method),
        pattern,
        COMPENSATIONS.get(compensation)() if compensation else None,
        refinement=REFINEMENTS.get(refinement)() if refinement else None,
        **options,
    )


def weights(model, own, runtime=None):
    """The blocks' weights after pruning, on the host."""
    prune(model, WINDOWS, own, runtime)
    network = model.model if isinstance(model, LoadedModel) else model
    return {name: value.detach().cpu().clone() for name, value in network.model.layers.state_dict().items()}


def check_alike(own, dtype=torch.float32):
    """The same masks but for a few entries that rounding decides, and nearly the same weights."""
    model = tiny_llama().to(dtype)
    on_cpu, on_gpu = (weights(copy.deepcopy(model).to(device), own) for device in ("cpu", "cuda"))
    entries = sum(value.numel() for value in on_cpu.values())
    different = sum(int(((value == 0) != (on_gpu[name] == 0)).sum()) for name, value in on_cpu.items())
    assert different <= (0.002 if dtype is torch.float32 else 0.02) * entries
    apart = sum((value - on_gpu[name]).double().square().sum() for name, value in on_cpu.items())
    whole = sum(value.double().square().sum() for value in on_cpu.values())
    assert apart <= (1e-4 if dtype is torch.float32 else 1e-2) * whole


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_as_on_a_cpu(method, pattern):
    check_alike(spec(method, pattern))


@pytest.mark.parametrize("method", ["cvr", "sparsegpt", "admm"])
def test_half_precision_prunes_as_on_a_cpu(method):
    check_alike(spec(method), torch.bfloat16)


@pytest.mark.parametrize("compensation", COMPENSATIONS.names())
def test_every_compensation_corrects_as_on_a_cpu(compensation):
    check_alike(spec(compensation=compensation))


@pytest.mark.parametrize("refinement", REFINEMENTS.names())
def test_every_refinement_refines_as_on_a_cpu(refinement):
    check_alike(spec(refinement=refinement))


@pytest.mark.parametrize("propagation", list(Propagation))
def test_every_propagation_prunes_as_on_a_cpu(propagation):
    check_alike(spec("cvr", compensation="energy", propagation=propagation))


@pytest.mark.parametrize("method", ["cvr", "sparsegpt"])
def test_no_placement_changes_a_bit(method, tmp_path):
    own = spec(method, compensation="energy")
    first = weights(tiny_llama().bfloat16().cuda(), own, PruneRuntime(batch_size=2))
    for placement in (Placement.host, Placement.disk):
        runtime = PruneRuntime(batch_size=2, placement=placement, folder=tmp_path)
        other = weights(tiny_llama().bfloat16().cuda(), own, runtime)
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_blocks_that_wait_in_pinned_memory_are_pruned_to_the_same_bits():
    own = spec("sparsegpt")
    first = weights(tiny_llama().bfloat16().cuda(), own)
    model = tiny_llama().bfloat16()
    modules = list(model.model.layers)
    source = HostSource(modules, pin=True)
    assert all(value.is_pinned() for value in source.read(0).values())
    streamer = Streamer(modules, source, torch.device("cuda"))
    loaded = LoadedModel(model.cuda(), tiny_tokenizer(), streamer, ModelSource("tiny"))
    blocks = find_blocks(loaded, WINDOWS[:1])
    prune(loaded, WINDOWS, own, None, blocks)
    for index in range(len(modules)):
        for name, value in source.read(index).items():
            assert torch.equal(value, first[f"{index}.{name}"])
    streamer.close()
