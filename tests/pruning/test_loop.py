"""The block loop on tiny models: its masks, what does not change them, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from statprune.core.compensation import Energy
from statprune.core.methods import Method, get_method, method_names
from statprune.core.moments import Moments
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.errors import ModelError
from statprune.model.coverage import measure_coverage, sparsity
from statprune.pruning.loop import prune
from statprune.pruning.spec import Propagation, PruneRuntime, PruneSpec
from statprune.walk.activations import Placement
from statprune.walk.discover import find_blocks
from tests.helpers.blocks import LinearBlock, RoutedBlock
from tests.helpers.families import Model, tiny_model
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows

WINDOWS = random_windows(5, 16, lowest=0)
LONGER = random_windows(4, 32)  # for models with experts, which more tokens reach then
WANDA = PruneSpec(get_method("wanda"), Unstructured(0.5))
WANDA_2_4 = PruneSpec(get_method("wanda"), NofM(2, 4))


def assert_same_weights(model, other):
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


class Failing(Method):
    """A method that solves nothing."""

    needs = StatisticsKind.MOMENTS

    def solve(self, weight, statistics, pattern):
        raise ValueError("no solution")


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NofM(2, 4)])
@pytest.mark.parametrize("propagation", ["pruned", "dense"])
def test_every_method_reaches_its_sparsity(name, pattern, propagation):
    model = tiny_llama()
    spec = PruneSpec(get_method(name), pattern, Energy(), propagation=propagation)
    prune(model, WINDOWS, spec, PruneRuntime(batch_size=2))
    assert sparsity(find_blocks(model, WINDOWS)) == 0.5


@torch.no_grad()
def inputs_of(model, modules, windows):
    """What each of the named modules gets, from the model's own forward."""
    inputs = {}

    def stores(name):
        def hook(_, args):
            inputs[name] = args[0].double()

        return hook

    hooks = [module.register_forward_pre_hook(stores(name)) for name, module in modules.items()]
    model(windows)
    for hook in hooks:
        hook.remove()
    return inputs


def test_wanda_masks_equal_a_plain_implementation_with_propagation():
    pruned = tiny_llama()
    prune(pruned, WINDOWS, WANDA, PruneRuntime(batch_size=2))
    model = tiny_llama()
    for block in model.model.layers:
        linears = {name: child for name, child in block.named_modules() if isinstance(child, nn.Linear)}
        inputs = inputs_of(model, linears, WINDOWS)
        for name, linear in linears.items():
            weight = linear.weight.data
            norm = inputs[name].flatten(0, 1).square().sum(0).sqrt()
            order = (weight.double().abs() * norm).argsort(dim=1, stable=True)
            weight.scatter_(1, order[:, : weight.shape[1] // 2], 0.0)
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize("name", method_names())
def test_the_batch_size_changes_no_weight(name):
    models = [tiny_llama() for _ in range(3)]
    for model, batch_size in zip(models, (1, 3, 5), strict=True):
        spec = PruneSpec(get_method(name), Unstructured(0.5), Energy())
        prune(model, WINDOWS, spec, PruneRuntime(batch_size=batch_size))
    assert_same_weights(models[0], models[1])
    assert_same_weights(models[0], models[2])


@pytest.mark.parametrize("propagation", Propagation)
@pytest.mark.parametrize("placement", [Placement.device, Placement.host, Placement.disk])
def test_the_placement_of_hidden_states_changes_no_weight(propagation, placement, tmp_path):
    windows, models = random_windows(5, 16), [tiny_llama(), tiny_llama()]
    spec = PruneSpec(get_method("sparsegpt"), Unstructured(0.5), propagation=propagation)
    prune(models[0], windows, spec, PruneRuntime(batch_size=2))
    prune(models[1], windows, spec, PruneRuntime(batch_size=2, placement=placement, folder=tmp_path))
    assert_same_weights(*models)


@pytest.mark.parametrize("propagation", Propagation)
@pytest.mark.parametrize("placement", [Placement.device, Placement.host, Placement.disk])
def test_hidden_states_leave_no_file_wherever_they_waited(propagation, placement, tmp_path):
    spec = PruneSpec(get_method("sparsegpt"), Unstructured(0.5), propagation=propagation)
    prune(tiny_llama(), WINDOWS, spec, PruneRuntime(batch_size=2, placement=placement, folder=tmp_path))
    assert not list(tmp_path.iterdir())


def test_statistics_that_were_collected_before_change_no_weight():
    models, collected = [tiny_llama() for _ in range(3)], DenseStatistics(StatisticsKind.MOMENTS)
    spec = PruneSpec(get_method("wanda"), Unstructured(0.5), propagation=Propagation.dense)
    for model, statistics in zip(models, (None, collected, collected), strict=True):  # without, collected, used
        prune(model, WINDOWS, spec, PruneRuntime(statistics=statistics))
    assert_same_weights(models[0], models[1])
    assert_same_weights(models[0], models[2])


def test_inference_mode_changes_no_weight():
    model, other = Model(LinearBlock(), LinearBlock()), Model(LinearBlock(), LinearBlock())
    other.load_state_dict(model.state_dict())
    spec = PruneSpec(get_method("sparsegpt"), NofM(2, 4))
    with torch.inference_mode():
        prune(model, LONGER, spec)
    prune(other, LONGER, spec)
    assert_same_weights(model, other)


def test_hooks_that_replace_a_blocks_forward_stay():
    """As accelerate's do on a model whose blocks live on several devices."""
    model, calls = tiny_llama(), []
    for layer in model.model.layers:
        plain = layer.forward

        def counted(*args, plain=plain, **kwargs):
            calls.append(1)
            return plain(*args, **kwargs)

        layer.forward = counted
    prune(model, WINDOWS, WANDA)
    calls.clear()
    with torch.no_grad():
        model(WINDOWS)
    assert len(calls) == 3


def test_a_pattern_that_does_not_fit_is_refused_with_the_matrices_names():
    with pytest.raises(ModelError, match=r"32 inputs are not divisible by M=5 \(self_attn.q_proj, "):
        prune(tiny_llama(), WINDOWS, PruneSpec(get_method("wanda"), NofM(2, 5)))


def test_a_pattern_that_does_not_fit_changes_nothing():
    model = tiny_llama()
    with pytest.raises(ModelError):
        prune(model, WINDOWS, PruneSpec(get_method("wanda"), NofM(2, 5)))
    assert_same_weights(model, tiny_llama())


def test_a_method_that_fails_names_the_matrix():
    with pytest.raises(ModelError, match=r"layer self_attn\.q_proj of block 0 can't be pruned: no solution"):
        prune(tiny_llama(), WINDOWS, PruneSpec(Failing(), Unstructured(0.5)))


def test_fewer_windows_than_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("statprune.pruning.loop.start", lambda device: None)
    with pytest.raises(ModelError, match="2 calibration windows can't be split over 3 processes; start fewer"):
        prune(tiny_llama(), torch.ones(2, 8, dtype=torch.long), WANDA)


def test_on_block_gets_every_blocks_reports_in_order():
    calls = []
    result = prune(tiny_llama(), WINDOWS, WANDA, PruneRuntime(on_block=lambda *call: calls.append(call)))
    assert [(block, blocks, len(reports)) for block, blocks, reports in calls] == [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
    assert tuple(report for _, _, reports in calls for report in reports) == result.matrices


@pytest.fixture(scope="module", params=Propagation)
def corrected(request):
    """A corrected model, its reports, and the held-out rows of each matrix's input."""
    rows = []

    class Watched(Moments):
        def apply(self, dense, pruned, keep, statistics):
            rows.append(statistics.rows[3::4])
            return super().apply(dense, pruned, keep, statistics)

    model, windows = tiny_llama(), torch.arange(4 * 32).view(4, 32) % 97
    compensation = Watched(samples=128)
    spec = PruneSpec(get_method("magnitude"), Unstructured(0.5), compensation, propagation=request.param)
    return model, prune(model, windows, spec).matrices, rows


def test_a_corrected_matrix_reports_its_error_on_held_out_rows(corrected):
    model, reports, held_out = corrected
    dense = dict(tiny_llama().named_parameters())
    assert len(reports) == 21
    for report, rows in zip(reports, held_out, strict=True):
        name = f"model.layers.{report.block}.{report.name}.weight"
        before, after = dense[name], model.get_parameter(name)
        error = (rows @ (before - after).T).norm() / (rows @ before.T).norm()
        assert report.relative_output_error == pytest.approx(error.item(), rel=1e-4)


def test_a_correction_never_raises_the_held_out_error(corrected):
    _, reports, _ = corrected
    for report in reports:
        assert report.diagnostics["output_error_after"] <= report.diagnostics["output_error_before"]


def test_a_correction_helps_some_matrices(corrected):
    _, reports, _ = corrected
    assert sum(report.diagnostics["corrected"] for report in reports) >= 5  # random inputs have small means


@pytest.fixture(scope="module")
def mixture():
    return tiny_model("Qwen3MoeConfig")


def test_experts_that_no_token_reaches_are_pruned_all_the_same(mixture):
    model = copy.deepcopy(mixture)
    with torch.no_grad():  # expert 0 of block 0 is never chosen: the router sees a constant direction
        gate = model.model.layers[0].mlp.gate.weight
        gate[1:] = gate[0]
        gate[1:] += torch.eye(*gate.shape)[1:] * 1e-3
        gate[0] = 0
        model.model.layers[0].post_attention_layernorm.weight.zero_()
        model.model.layers[0].post_attention_layernorm.weight[0] = 1
    reports = prune(model, LONGER, WANDA_2_4).matrices
    unreached = [report for report in reports if report.block == 0 and report.pooled_statistics]
    assert unreached and all(report.sparsity == 0.5 and "experts" in report.name for report in unreached)


class Unused(LinearBlock):
    """Experts that the tokens which ``find_blocks`` tries reach, and those of longer windows do not."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 8, bias=False) for _ in range(3))

    def forward(self, hidden_states):
        if hidden_states.shape[1] > 16:
            return hidden_states
        return self.linear(hidden_states) + sum(expert(hidden_states).sum(-1, True) for expert in self.experts)


def pruned_unused(method):
    """The three experts, their dense weights and their reports, where no calibration token reaches them."""
    model = Model(Unused())
    blocks = find_blocks(model, LONGER[:, :16], exclude=["linear"])
    dense = [matrix.read() for matrix in blocks[0].matrices]
    result = prune(model, LONGER, PruneSpec(get_method(method), NofM(2, 4)), blocks=blocks)
    return blocks[0].matrices, dense, result.matrices


@pytest.mark.parametrize("method", method_names())
def test_a_mixture_no_token_reaches_is_pruned_and_counted(method):
    _, _, reports = pruned_unused(method)
    assert len(reports) == 3
    assert all(report.calibration_tokens == 0 and report.sparsity == 0.5 for report in reports)


@pytest.mark.parametrize("method", method_names())
def test_a_mixture_no_token_reaches_has_no_output_error(method):
    _, _, reports = pruned_unused(method)
    assert all(report.relative_output_error is None for report in reports)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])  # others weigh the weight's rows and columns
def test_a_mixture_no_token_reaches_is_pruned_by_magnitude(method):
    matrices, dense, _ = pruned_unused(method)
    for matrix, weight in zip(matrices, dense, strict=True):
        assert torch.equal(matrix.read() != 0, NofM(2, 4).select(weight.abs()))


def pruned_routed(min_expert_tokens):
    """Blocks and reports of experts that have no tokens in some batches, or none at all."""
    model = Model(RoutedBlock())
    blocks = find_blocks(model, LONGER)
    spec = PruneSpec(get_method("sparsegpt"), NofM(2, 4), min_expert_tokens=min_expert_tokens)
    return blocks, prune(model, LONGER, spec, PruneRuntime(batch_size=3)).matrices


@pytest.mark.parametrize(("min_expert_tokens", "is_few"), [(0, False), (32, True)])
def test_experts_below_the_least_number_of_tokens_have_pooled_statistics(min_expert_tokens, is_few):
    _, reports = pruned_routed(min_expert_tokens)
    assert {report.expert: (report.calibration_tokens, report.pooled_statistics) for report in reports} == {
        None: (128, False),
        "experts.0": (64, False),
        "experts.1": (48, False),
        "experts.2": (0, True),
        "experts.3": (16, is_few),
    }


@pytest.mark.parametrize("min_expert_tokens", [0, 32])
def test_experts_without_tokens_in_some_batches_or_at_all_are_pruned(min_expert_tokens):
    blocks, _ = pruned_routed(min_expert_tokens)
    assert sparsity(blocks) == 0.5


def test_a_router_is_pruned_where_asked_for(mixture):
    model = copy.deepcopy(mixture)
    blocks = find_blocks(model, LONGER, prune_routers=True)
    prune(model, LONGER, WANDA, blocks=blocks)
    assert sparsity(blocks) == 0.5 and (model.model.layers[0].mlp.gate.weight == 0).float().mean() == 0.5


@pytest.fixture(scope="module")
def partly_pruned(mixture):
    """A model pruned without some of its matrices: the names of changed weights, and the blocks."""
    model = copy.deepcopy(mixture)
    blocks = find_blocks(model, LONGER, exclude=[r"layers\.1\.", r"[vo]_proj$"])
    prune(model, LONGER, PruneSpec(get_method("magnitude"), Unstructured(0.5)), blocks=blocks)
    before = mixture.state_dict()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}, blocks


def test_excluded_matrices_stay_dense(partly_pruned):
    changed, _ = partly_pruned
    names = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    assert changed == {f"model.layers.0.{name}" for name in names}


def test_excluded_matrices_lower_the_achieved_sparsity(partly_pruned):
    _, blocks = partly_pruned
    coverage = measure_coverage(blocks)
    share = coverage.pruned / (coverage.prunable + coverage.skipped)
    assert sparsity(blocks) == pytest.approx(0.5 * share) and share < 0.5
